"""`qemubox cache`: what the layer cache holds, and making room in it.

    qemubox cache show [--json]
    qemubox cache prune [--all | --to MIB]
    qemubox cache verify

Safe at any time, beside containers that start, run or end: an image in use is never removed, but for one that `verify`
has found damaged, which loses its name only: who has it open keeps it, and the next start makes it anew.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.config import Config, load
from shim.errors import HostError, SpecError
from shim.rootfs import erofs, flock, superblock
from shim.rootfs.store import Store, StoredImage
from shim.rootfs.users import LOCKS, inode_of, shared_locks

_SHORT: Final = 12
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as `show` tells of it: sizes in bytes, the time in seconds since 1970, how many machines use it."""

    digest: str
    disk_bytes: int
    size: int
    used_at: float
    users: int
    layers: tuple[str, ...]

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.used_at))
        users = f"in use by {self.users}" if self.users else "not in use"
        words = (self.digest[:_SHORT], f"{_mib(self.disk_bytes)} of {_mib(self.size)}", when, users)
        return "  ".join((*words, ", ".join(self.layers) or "for no layer that is there"))


def show(arguments: argparse.Namespace) -> int:
    """List the images."""
    return _run(_show, arguments)


def prune(arguments: argparse.Namespace) -> int:
    """Make room."""
    return _run(_prune, arguments)


def verify(arguments: argparse.Namespace) -> int:
    """Read all of them."""
    return _run(_verify, arguments)


def _run(action: Callable[[Config, Store, argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    config = load()
    store = Store(Path(config.runtime.cache_dir, "layers"))
    try:
        return action(config, store, arguments)
    except BrokenPipeError:  # nobody reads what is printed
        raise
    except OSError as error:
        raise HostError(f"{error.filename or store.directory}: {error.strerror}") from error


def shown(store: Store) -> list[Shown]:
    """The images of the cache, least recently used first. Raises OSError."""
    locks = shared_locks(LOCKS.read_text())
    found = []
    for image in store.images():
        try:
            users = locks[inode_of(image.path)] or int(_is_locked(image.path))
        except FileNotFoundError:  # gone meanwhile
            continue
        layers = tuple(os.fsencode(layer).decode(errors="backslashreplace") for layer in image.layers)
        found.append(Shown(image.digest, image.disk_bytes, image.size, image.used_ns / 1e9, users, layers))
    return found


def _show(config: Config, store: Store, arguments: argparse.Namespace) -> int:
    images = shown(store)
    total, limit_mib = sum(image.disk_bytes for image in images), config.rootfs.cache_limit_mib
    if arguments.json:
        fields = ("digest", "disk_bytes", "size", "used_at", "users", "layers")
        listed = [{name: getattr(image, name) for name in fields} for image in images]
        answer = {"directory": str(store.directory), "limit_bytes": limit_mib * _MIB, "disk_bytes": total}
        print(json.dumps({**answer, "images": listed}, indent=1))
        return 0
    for image in images:
        print(image)
    print(f"{len(images)} images, {_mib(total)} of {limit_mib} MiB, in {store.directory}")
    return 0


def _prune(config: Config, store: Store, arguments: argparse.Namespace) -> int:
    if arguments.to is not None and arguments.to < 0:
        raise SpecError(f"--to {arguments.to}: must be a whole number of MiB, 0 or more")
    limit_mib = config.rootfs.cache_limit_mib if arguments.to is None else arguments.to
    removed = store.remove([image for image in store.images() if not image.layers])
    removed += store.clean(0 if arguments.all else limit_mib * _MIB)
    for image in removed:
        print(f"removed: {_words(image)}")
    left = shown(store)
    used = sum(image.users > 0 for image in left)
    freed, kept = sum(image.disk_bytes for image in removed), sum(image.disk_bytes for image in left)
    print(f"freed {_mib(freed)}; left: {len(left)} images, {used} of them in use, {_mib(kept)}")
    return 0


def _verify(_config: Config, store: Store, _arguments: argparse.Namespace) -> int:
    bad = 0
    for image in store.images():
        fault = _fault(image)
        if fault is None:
            continue
        print(f"{_words(image)}  {f'damaged, removed: {fault}' if fault else 'good'}")
        if fault:
            bad += 1
            store.discard(image)
    return 1 if bad else 0


def _fault(image: StoredImage) -> str | None:
    """What is wrong with the image, read whole; empty for nothing, None where it has gone meanwhile."""
    try:
        fd = os.open(image.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if not flock.try_shared(fd):  # it is being removed
            return None
        try:
            fault = superblock.fault(fd, os.fstat(fd).st_size, image.digest)
            return fault or ("" if erofs.read_digest(file) == image.digest else "its content is not what was written")
        except OSError as error:
            return f"cannot be read: {error.strerror}"


def _is_locked(path: Path) -> bool:
    """For file systems whose locks cannot be found in the kernel's list. A start at that moment looks twice."""
    with path.open("rb") as file:
        return not flock.try_exclusive(file.fileno())


def _words(image: StoredImage) -> str:
    return f"{image.digest[:_SHORT]}  {_mib(image.disk_bytes)}"


def _mib(count: int) -> str:
    return f"{count / _MIB:.1f} MiB"
