"""Images of committed layers, each converted once per host and shared by all machines.

What the directory looks like, and when an image in it counts, says store.py; this is who makes them.

A committed snapshot's directory never changes: containerd writes to it only before the
commit, overlayfs leaves lower layers alone, and containerd gives no second snapshot the
same number. So path, device, inode number and change time of the directory are its
identity. The change time cannot be set by anybody, and tells a directory from another
one that was later given the same path and inode number.

What a killed maker left is unlocked: the maker's journal names it (as a draft), and without
that it is overwritten by the next who wants it or removed by the next who makes anything.
"""

import asyncio
import errno
import os
from pathlib import Path
from typing import Final

from shim.errors import HostError, ResourceError
from shim.journal import Journal
from shim.log import Logger
from shim.rootfs import erofs, flock
from shim.rootfs.store import OpenLayer, Store, identity

# Only an image that is removed between its making and its opening needs a further try.
_TRIES: Final = 3


class LayerCache:
    """The cache in `directory`, kept below `limit_mib` as far as images in use allow.

    Any number of processes may use one directory at once. `mkfs_erofs` is a path, or a name
    to look for in PATH; `deadline_s` bounds one layer's conversion. What is begun is written
    into `journal`, if there is one, and an image that is found damaged into `log`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_mib: int,
        mkfs_erofs: str,
        deadline_s: float,
        journal: Journal | None = None,
        log: Logger | None = None,
    ) -> None:
        self._store = Store(directory, log)
        self._limit_bytes = limit_mib << 20
        self._mkfs = erofs.tool(mkfs_erofs, deadline_s)
        self._journal = journal
        self._log = log
        self._converting = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def deadline_s(self) -> float:
        """What one layer's conversion may take."""
        return self._mkfs.timeout_s

    async def convert(self, directory: Path, image: Path) -> None:
        """Make an image outside of the cache, of a directory that may change later. Raises as `ensure`."""
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

        Where the disk is full, images that nobody uses make room. Raises ResourceError (full disk),
        UnsupportedError, MissingPartError or HostError.
        """
        for _ in range(_TRIES):
            found = self.lookup(layer)
            if found is not None:
                return found
            async with self._converting:
                found = await self._make_with_room(layer)
            if found is not None:
                return await self._after_growth(found)
        raise HostError(
            f"image of {layer}: was removed as soon as it was made, {_TRIES} times", hint="raise cache_limit_mib"
        )

    def lookup(self, layer: Path) -> OpenLayer | None:
        """The image of a committed layer's directory, if there is one. Raises HostError without such a directory."""
        return self._store.open(identity(layer))

    async def _make_with_room(self, layer: Path) -> OpenLayer | None:
        """A full disk is no reason to fail as long as some of it is full of images that nobody uses."""
        try:
            return await self._make(layer)
        except ResourceError:
            removed = await asyncio.to_thread(self._store.clean, 0)
            if not removed:
                raise
        if self._log is not None:
            freed_mib = sum(image.disk_bytes for image in removed) >> 20
            self._log.warning("disk full: unused images of the layer cache were removed", freed_mib=freed_mib)
        return await self._make(layer)

    async def _make(self, layer: Path) -> OpenLayer | None:
        """Convert, unless another process does: then wait for it."""
        key = identity(layer)
        image = self._store.draft_path(key)
        try:
            if self._journal is not None:
                self._journal.record("draft", path=str(image))
            image, lock_path = self._store.draft(key)
            async with flock.maker(lock_path, self._mkfs.timeout_s) as lock:
                return self._store.open(key) or await self._convert(layer, key, image, lock)
        except TimeoutError:
            raise HostError(
                f"{image}: another process did not finish this image within {self._mkfs.timeout_s:g} s"
            ) from None
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(f"{image}: {error.strerror}", hint=_FULL) from error
            raise HostError(f"{image}: {error.strerror}") from error

    async def _convert(self, layer: Path, key: str, image: Path, lock: int) -> OpenLayer | None:
        try:
            await erofs.convert(self._mkfs, layer, image, keep_open=(lock,))
            digest = await asyncio.to_thread(_settle, image)
            if identity(layer) != key:
                raise HostError(f"layer {layer}: is another one than when its image was begun")
            self._store.publish(image, digest, key, layer)
        except ResourceError as error:
            raise ResourceError(error.message, hint=_FULL) from error
        finally:
            image.unlink(missing_ok=True)
        return self._store.open(key)

    async def _after_growth(self, found: OpenLayer) -> OpenLayer:
        try:
            await asyncio.to_thread(self._store.clean, self._limit_bytes)
        except OSError as error:
            found.close()
            raise HostError(f"layer cache, after {found.path} was added: {error.strerror}") from error
        except BaseException:
            found.close()
            raise
        return found


_FULL: Final = "free some of that file system, or put runtime.cache_dir on a larger one"


def _settle(image: Path) -> str:
    """Name a finished image, and bring it to the disk, so that no crash leaves one with holes."""
    digest = erofs.name(image)
    with image.open("rb") as file:
        os.fdatasync(file.fileno())
    return digest
