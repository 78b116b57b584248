"""A disk, a guest that lists what is on it with vminitd's own code, and what is compared of two trees."""

import asyncio
import hashlib
import os
import stat
import subprocess
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import structlog

from api import changes_pb2
from shim.changes.target import Kind, Target
from shim.changes.write_back import Applied, WriteBack
from shim.guest import Guest
from shim.log import Logger
from vminitd.changes import Listing
from vminitd.libc import MNT_DETACH, mount, umount

_Reply = TypeVar("_Reply")

# As shim/rootfs/writable.py makes the writable layer.
FEATURES: Final = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,"
    "dir_nlink,extra_isize,metadata_csum"
)
DEADLINE_S: Final = 30.0


class Disk:
    """An ext4 in the file `image`, mounted at `root`, by which overlays can be made upon it."""

    def __init__(
        self, image: Path, mount_point: Path, *, mib: int, features: str = FEATURES, block: int = 4096
    ) -> None:
        with image.open("wb") as file:
            file.truncate(mib << 20)
        command = ["mkfs.ext4", "-q", "-F", "-b", str(block), "-I", "256", "-m", "0", "-O", features]
        subprocess.run([*command, str(image)], check=True, timeout=30)
        mount_point.mkdir()
        subprocess.run(["mount", "-o", "loop,nodev", str(image), str(mount_point)], check=True, timeout=30)
        self.root = mount_point
        self.image = os.open(image, os.O_RDONLY)

    def close(self) -> None:
        """Also while something of it is open: that is the last of it then."""
        os.close(self.image)
        umount(str(self.root), MNT_DETACH)


@contextmanager
def disk(place: Path, *, mib: int = 64, features: str = FEATURES, block: int = 4096) -> Iterator[Disk]:
    """A disk in the directory `place`, for as long as the block lasts."""
    made = Disk(place / "image.ext4", place / "mounted", mib=mib, features=features, block=block)
    try:
        yield made
    finally:
        made.close()


class Lister:
    """Answers Changes.List as vminitd does. `pages` counts the calls, `briefs` what was listed in brief."""

    def __init__(self, directory: Path, layers: Sequence[Path] = ()) -> None:
        self.directory = directory
        self._layers = [str(layer) for layer in layers]
        self.pages = 0
        self.briefs = 0
        self._listing: Listing | None = None

    async def List(self, request: changes_pb2.ListRequest) -> changes_pb2.ListResponse:
        """A page, that has been a message on its way."""
        self.pages += 1
        if not request.page:
            layers = self._layers if request.upon_earlier else None
            self._listing = Listing(str(self.directory), layers, request.known_ns)
        assert self._listing is not None
        page = await asyncio.to_thread(self._listing.page)
        self.briefs += sum(entry.brief for entry in page.entries)
        return changes_pb2.ListResponse.FromString(page.SerializeToString())


class ListingGuest:
    """What WriteBack needs of a Guest."""

    def __init__(self, directory: Path, layers: Sequence[Path] = ()) -> None:
        self.changes = Lister(directory, layers)

    async def call(self, reply: Awaitable[_Reply], *, deadline_s: float | None) -> _Reply:
        """As Guest.call."""
        return await reply


def write_back(source: Path, target: Target, layers: Sequence[Path] = ()) -> Applied:
    """One run, of a shim that has just been started. `layers` are the image's, below what earlier starts have left."""
    guest = cast(Guest, ListingGuest(source, layers))
    return asyncio.run(WriteBack("c", guest, target, quiet()).run(DEADLINE_S))


def quiet() -> Logger:
    return cast(
        Logger, structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger(40))
    )


def target(directory: Path, image: int, *, kind: Kind = Kind.OVERLAY, mirror: bool = True) -> Target:
    """With its record beside the directory."""
    return Target(directory, kind, mirror, image, directory.with_name(f"{directory.name}.record"))


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """Every inode below `root`, by its path with "" for the root itself: all that must be the same of two trees.

    Names of one file show the first of them.
    """
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    pending = [""]
    while pending:
        name = pending.pop()
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in Path(name).parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            last = name.rpartition("/")[2] or "."
            path = f"/proc/self/fd/{fd}/{last}"
            status = os.stat(path, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG:
                content = _content(path)
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            elif kind == stat.S_IFDIR:
                pending += [f"{name}/{each}" if name else each for each in os.listdir(path)]
            whiteout = kind == stat.S_IFCHR and status.st_rdev == 0
            found[name] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
                0 if whiteout else status.st_mtime_ns,
                content,
                _xattrs(path),
                name if kind == stat.S_IFDIR or whiteout else first.setdefault(status.st_ino, name),
            )
        finally:
            os.close(fd)
    return _first_names(found)


def _first_names(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """Whatever order they were found in, the first name of a file is the least."""
    least: dict[object, str] = {}
    for name in sorted(found):
        least.setdefault(found[name][-1], name)
    return {name: (*facts[:-1], least[facts[-1]]) for name, facts in found.items()}


def _content(path: str) -> tuple[int, str]:
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha1").hexdigest()


def _xattrs(path: str) -> tuple[tuple[str, bytes], ...]:
    """But for overlayfs's own, which have a meaning within one overlay alone, and say nothing of what is in it."""
    kept = ("trusted.overlay.opaque",)
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in sorted(os.listxattr(path, follow_symlinks=False))
        if not name.startswith("trusted.overlay.") or name in kept
    )


@contextmanager
def mounted(fstype: str, at: Path, options: str = "") -> Iterator[None]:
    """A file system of this type, for as long as the block lasts."""
    mount(fstype, str(at), fstype, 0, options)
    try:
        yield
    finally:
        umount(str(at), MNT_DETACH)
