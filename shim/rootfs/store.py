"""The directory of the layer cache: what is in it, what is handed out of it, what goes.

    DIR/index/IDENTITY        the image of one layer's directory: a symbolic link into blobs
    DIR/layers/IDENTITY       that directory: a symbolic link to it, for people
    DIR/blobs/SHA256.erofs    the images, named by content (erofs.name): equal layers share one
    DIR/making/IDENTITY.erofs.lock  locked by who makes the image of that layer
    DIR/making/IDENTITY.erofs       the image as far as it is made

An image appears by rename after its data is on disk, and a link to an image that is not there counts as none. So does
one to an image that was cut short, or whose first block is damaged: that much is looked at whenever it is handed out.
An image in use is locked (shared) as long as the shim or QEMU has it open, and only what can be locked exclusively is
ever removed. What killed makers left in `making` is unlocked.
"""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from shim.errors import HostError
from shim.log import Logger
from shim.rootfs import erofs, flock, superblock

_STAT_BLOCK: Final = 512
# Opening a file of ours never waits and never leads elsewhere, whatever somebody has put in its place.
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(slots=True)
class OpenLayer:
    """An image in use: it stays in the cache until this, and every copy of `fd`, is closed."""

    fd: int
    path: Path
    digest: str
    size: int

    def close(self) -> None:
        """Let go of the image. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "OpenLayer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image that is there: its size, what it takes on the disk, in bytes, and when it was used last.

    `layers` are the directories that it stands for and that still are what they were.
    """

    path: Path
    size: int
    disk_bytes: int
    used_ns: int
    layers: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of its content, in hex."""
        return self.path.stem


class Store:
    """The cache's directory. Any number of processes may use one at once."""

    def __init__(self, directory: Path, log: Logger | None = None) -> None:
        self.directory = directory
        self._index = directory / "index"
        self._layers = directory / "layers"
        self._blobs = directory / "blobs"
        self._making = directory / "making"
        self._log = log
        self._told: set[Path] = set()

    def draft(self, key: str) -> tuple[Path, Path]:
        """Where the image of that layer is made, and the lock file of who makes it; their directories exist then.

        Raises OSError.
        """
        for directory in (self._index, self._layers, self._blobs, self._making):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        image = self.draft_path(key)
        return image, image.with_name(f"{image.name}.lock")

    def draft_path(self, key: str) -> Path:
        """Where the image of that layer is made."""
        return self._making / f"{key}.erofs"

    def open(self, key: str) -> OpenLayer | None:
        """The image of that layer, now in use; None where there is none that can be used. Raises HostError."""
        try:
            path = self._blobs / os.readlink(self._index / key).rpartition("/")[2]
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # no link
                return None
            raise HostError(f"{self._index / key}: {error.strerror}") from error
        try:
            fd = os.open(path, _OPEN)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                self._damaged(path, "is no file")
                return None
            raise HostError(f"{path}: {error.strerror}") from error
        found = OpenLayer(fd, path, path.stem, os.fstat(fd).st_size)
        try:
            if flock.try_shared(fd) and flock.is_at(fd, path):
                fault = _fault(fd, found.size, found.digest)
                if not fault:
                    os.utime(fd)  # the time of its last use
                    return found
                self._damaged(path, fault)
        except OSError as error:
            found.close()
            raise HostError(f"{path}: {error.strerror}") from error
        found.close()  # damaged, or being removed
        return None

    def publish(self, image: Path, digest: str, key: str, layer: Path) -> None:
        """Give a finished image its place. The links come first, so that a failure leaves no image without them.

        One of that content that is there already is kept, if it is whole; one that is not is replaced. Who has that in
        use keeps it. Raises OSError.
        """
        blob = self._blobs / f"{digest}.erofs"
        links = ((self._layers / key, os.fspath(layer)), (self._index / key, f"../blobs/{blob.name}"))
        try:
            for link, target in links:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
            if not _is_whole(blob, digest):
                image.chmod(0o400)
                image.rename(blob)
        except OSError:
            for link, _ in links:
                with contextlib.suppress(OSError):
                    link.unlink(missing_ok=True)
            raise

    def images(self) -> list[StoredImage]:
        """All images, least recently used first. Raises OSError."""
        layers: dict[str, list[Path]] = {}
        for link in _entries(self._index):
            with contextlib.suppress(OSError):  # no link, or gone meanwhile
                blob = os.readlink(link).rpartition("/")[2]
                layer = Path(os.readlink(self._layers / link.name))
                if _stands(layer, link.name):
                    layers.setdefault(blob, []).append(layer)
        return self._images({blob: tuple(sorted(found)) for blob, found in layers.items()})

    def _images(self, layers: Mapping[str, tuple[Path, ...]]) -> list[StoredImage]:
        found = [
            StoredImage(
                path=blob,
                size=status.st_size,
                disk_bytes=status.st_blocks * _STAT_BLOCK,
                used_ns=status.st_mtime_ns,
                layers=layers.get(blob.name, ()),
            )
            for blob in _entries(self._blobs)
            if (status := _status(blob)) is not None
        ]
        return sorted(found, key=lambda image: image.used_ns)

    def clean(self, limit_bytes: int) -> list[StoredImage]:
        """Remove what killed makers left; then unused images, least recently used first, down to the limit.

        Answers with the images that are gone, of whatever layers. Raises OSError.
        """
        for lock in self._making.glob("*.lock"):
            _remove_unused(lock, lock.with_suffix(""))
        images = self._images({})  # every start that makes an image comes here: no layer is looked at
        used_bytes = sum(image.disk_bytes for image in images)
        removed = []
        for image in images:
            if used_bytes <= limit_bytes:
                break
            if _remove_unused(image.path):
                used_bytes -= image.disk_bytes
                removed.append(image)
        self._remove_links()
        return removed

    def remove(self, images: Sequence[StoredImage]) -> list[StoredImage]:
        """Remove those of the images that nobody uses, and answer with them. Raises OSError."""
        removed = [image for image in images if _remove_unused(image.path)]
        self._remove_links()
        return removed

    def discard(self, image: StoredImage) -> None:
        """Have nobody find this image again; who has it in use keeps it. Raises OSError."""
        image.path.unlink(missing_ok=True)
        self._remove_links()

    def _remove_links(self) -> None:
        """Those to images that are gone, and those to layers of which there is no image; none of one that is made now.

        A maker puts its links before its image, which is in `making` until then: that is looked at first.
        """
        for link in (*_entries(self._index), *_entries(self._layers)):
            if not self.draft_path(link.name).exists() and not (self._index / link.name).exists():
                link.unlink(missing_ok=True)

    def _damaged(self, path: Path, fault: str) -> None:
        if self._log is not None and path not in self._told:
            self._told.add(path)
            self._log.warning("an image of the layer cache is made anew", image=str(path), fault=fault)


def identity(layer: Path) -> str:
    """What tells this directory, with its content, from every other one; see cache.py. Raises HostError."""
    try:
        status = os.stat(layer)
    except OSError as error:
        raise HostError(f"layer {layer}: {error.strerror}") from error
    facts = (erofs.FORMAT, str(layer), status.st_dev, status.st_ino, status.st_ctime_ns)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _fault(fd: int, size: int, digest: str) -> str:
    """What is wrong with an open image, as far as its first block and its size tell."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return "is no file"
    return superblock.fault(fd, size, digest)


def _is_whole(blob: Path, digest: str) -> bool:
    try:
        fd = os.open(blob, _OPEN)
    except OSError:
        return False
    try:
        return not _fault(fd, os.fstat(fd).st_size, digest)
    except OSError:  # it cannot be read
        return False
    finally:
        os.close(fd)


def _entries(directory: Path) -> list[Path]:
    """What is in there; nothing if there is no such directory."""
    try:
        return list(directory.iterdir())
    except FileNotFoundError:
        return []


def _stands(layer: Path, key: str) -> bool:
    """Whether the directory is still the one that the image was made of."""
    try:
        return identity(layer) == key
    except HostError:
        return False


def _status(path: Path) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return path.lstat()
    return None


def _remove_unused(path: Path, *first: Path) -> bool:
    """Remove a file, and before it what it stands for, unless somebody has it locked."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        return False
    try:
        if not flock.try_exclusive(fd) or not flock.is_at(fd, path):
            return False
        for each in (*first, path):
            each.unlink(missing_ok=True)
        return True
    finally:
        os.close(fd)
