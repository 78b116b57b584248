"""Images of committed layers, each converted once per host and shared by all machines.

    DIR/index/IDENTITY        the image of one layer's directory: a symbolic link into blobs
    DIR/blobs/SHA256.erofs    the images, named by content (erofs.name): equal layers share one
    DIR/making/IDENTITY.erofs.lock  locked by who makes the image of that layer
    DIR/making/IDENTITY.erofs       the image as far as it is made

A committed snapshot's directory never changes: containerd writes to it only before the
commit, overlayfs leaves lower layers alone, and containerd gives no second snapshot the
same number. So path, device, inode number and change time of the directory are its
identity. The change time cannot be set by anybody, and tells a directory from another
one that was later given the same path and inode number.

An image appears by rename after its data is on disk, and a link to an image that is not
there counts as none. What a killed maker left in `making` is unlocked: the maker's journal
names it (as a draft), and without that it is overwritten by the next who wants it or
removed by the next who makes anything. A machine's image is locked (shared) as long as the shim or QEMU has it open,
and only what can be locked exclusively is ever removed.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from shim.errors import HostError, ResourceError
from shim.journal import Journal
from shim.rootfs import erofs, flock

# Only an image that is removed between its making and its opening needs a further try.
_TRIES: Final = 3


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


class LayerCache:
    """The cache in `directory`, kept below `limit_mib` as far as images in use allow.

    Any number of processes may use one directory at once. `mkfs_erofs` is a path, or a name
    to look for in PATH; `deadline_s` bounds one layer's conversion. What is begun is written
    into `journal`, if there is one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_mib: int,
        mkfs_erofs: str,
        deadline_s: float,
        journal: Journal | None = None,
    ) -> None:
        self._index = directory / "index"
        self._blobs = directory / "blobs"
        self._making = directory / "making"
        self._limit_bytes = limit_mib << 20
        self._mkfs = erofs.tool(mkfs_erofs, deadline_s)
        self._journal = journal
        self._converting = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def deadline_s(self) -> float:
        """What one layer's conversion may take."""
        return self._mkfs.timeout_s

    async def convert(self, directory: Path, image: Path) -> None:
        """Make an image outside of the cache, of a directory that may change. Raises as `ensure`."""
        image.unlink(missing_ok=True)
        try:
            async with self._converting:
                await erofs.convert(self._mkfs, directory, image)
            await asyncio.to_thread(erofs.name, image)
        except BaseException:
            image.unlink(missing_ok=True)
            raise

    async def ensure(self, layer: Path) -> OpenLayer:
        """The image of a committed layer's directory, made now if there is none.

        Raises ResourceError (full disk), MissingPartError or HostError.
        """
        for _ in range(_TRIES):
            found = self.lookup(layer)
            if found is not None:
                return found
            async with self._converting:
                found = await self._make(layer)
            if found is not None:
                return await self._after_growth(found)
        raise HostError(
            f"image of {layer}: was removed as soon as it was made, {_TRIES} times", hint="raise cache_limit_mib"
        )

    def lookup(self, layer: Path) -> OpenLayer | None:
        """The image of a committed layer's directory, if there is one. Raises HostError without such a directory."""
        try:
            path = self._blobs / os.readlink(self._index / _identity(layer)).rpartition("/")[2]
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        found = OpenLayer(fd, path, path.stem, os.fstat(fd).st_size)
        try:
            if flock.try_shared(fd) and flock.is_at(fd, path):
                os.utime(fd)  # the time of its last use
                return found
        except OSError as error:
            found.close()
            raise HostError(f"{path}: {error.strerror}") from error
        found.close()  # it is being removed
        return None

    async def _make(self, layer: Path) -> OpenLayer | None:
        """Convert, unless another process does: then wait for it."""
        identity = _identity(layer)
        image = self._making / f"{identity}.erofs"
        lock_path = image.with_name(f"{image.name}.lock")
        try:
            if self._journal is not None:
                self._journal.record("draft", path=str(image))
            for directory in (self._index, self._blobs, self._making):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            async with flock.maker(lock_path, self._mkfs.timeout_s) as lock:
                return self.lookup(layer) or await self._convert(layer, image, lock)
        except TimeoutError:
            raise HostError(
                f"{image}: another process did not finish this image within {self._mkfs.timeout_s:g} s"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(f"{image}: {error.strerror}", hint="free some of that file system") from error
            raise HostError(f"{image}: {error.strerror}") from error

    async def _convert(self, layer: Path, image: Path, lock: int) -> OpenLayer | None:
        try:
            await erofs.convert(self._mkfs, layer, image, keep_open=(lock,))
            self._publish(image, await asyncio.to_thread(_settle, image))
        finally:
            image.unlink(missing_ok=True)
        return self.lookup(layer)

    def _publish(self, image: Path, digest: str) -> None:
        """Give a finished image its place. The link comes first, so that a failure leaves no image without one."""
        link = self._index / image.stem
        blob = self._blobs / f"{digest}.erofs"
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(f"../blobs/{blob.name}")
            if not blob.exists():
                image.chmod(0o400)
                image.rename(blob)
        except OSError:
            link.unlink(missing_ok=True)
            raise

    async def _after_growth(self, found: OpenLayer) -> OpenLayer:
        try:
            await asyncio.to_thread(self._clean)
        except OSError as error:
            found.close()
            raise HostError(f"layer cache, after {found.path} was added: {error.strerror}") from error
        except BaseException:
            found.close()
            raise
        return found

    def _clean(self) -> None:
        """Remove what killed makers left; then unused images, least recently used first, down to the limit."""
        for lock in self._making.glob("*.lock"):
            _remove_unused(lock, lock.with_suffix(""))
        blobs = [(blob, status) for blob in self._blobs.iterdir() if (status := _status(blob)) is not None]
        used_bytes = sum(status.st_blocks * 512 for _, status in blobs)
        for blob, status in sorted(blobs, key=lambda item: item[1].st_mtime_ns):
            if used_bytes <= self._limit_bytes:
                break
            if _remove_unused(blob):
                used_bytes -= status.st_blocks * 512
        for link in self._index.iterdir():
            if not link.exists():
                link.unlink(missing_ok=True)


def _identity(layer: Path) -> str:
    """What tells this directory, with its content, from every other one; see the module's text."""
    try:
        status = os.stat(layer)
    except OSError as error:
        raise HostError(f"layer {layer}: {error.strerror}") from error
    facts = (erofs.FORMAT, str(layer), status.st_dev, status.st_ino, status.st_ctime_ns)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _settle(image: Path) -> str:
    """Name a finished image, and bring it to the disk, so that no crash leaves one with holes."""
    digest = erofs.name(image)
    with image.open("rb") as file:
        os.fdatasync(file.fileno())
    return digest


def _status(path: Path) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat()
    return None


def _remove_unused(path: Path, *first: Path) -> bool:
    """Remove a file, and before it what it stands for, unless somebody has it locked."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
