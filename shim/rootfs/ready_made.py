"""Empty ext4 files, one of each size, ready to be copied: a container's start runs no mkfs.

    DIR/SIZE.ext4    SIZE: in bytes

A copy is the data of the file, 0.2 MiB in some 20 runs, at their places in a sparse file: 0.3 ms, where mkfs.ext4 takes
18 to 30 ms (docs/decisions/0025). All copies have one UUID, and no machine has two of them. The last few sizes are
kept: whoever may set the annotation for it could fill the disk otherwise.
"""

import asyncio
import contextlib
import errno
import os
from pathlib import Path
from typing import Final

from shim.errors import HostError
from shim.journal import Journal
from shim.rootfs import writable
from shim.rootfs.program import Tool
from shim.rootfs.writable import told

DIRECTORY: Final = "empty"
# Sizes kept.
_LIMIT: Final = 16
_TRIES: Final = 3
_PIECE: Final = 1 << 20


class ReadyMade:
    """The empty file systems in `directory`. Any number of processes may use one directory at once.

    What is begun there is written into `journal`.
    """

    def __init__(self, directory: Path, mkfs: Tool, journal: Journal) -> None:
        self._directory = directory
        self._mkfs = mkfs
        self._journal = journal

    async def copy(self, path: Path, size_bytes: int) -> None:
        """Make `path`, which is not there, an empty ext4 of `size_bytes`; it appears whole or not at all.

        Raises as `writable.make`.
        """
        for _ in range(_TRIES):
            if await asyncio.to_thread(_copy, self._directory / f"{size_bytes}.ext4", path):
                return
            await self._make(size_bytes)
        raise HostError(f"{self._directory}: what is made there is removed again at once")

    async def _make(self, size_bytes: int) -> None:
        path = self._directory / f"{size_bytes}.ext4"
        with told(path):
            self._journal.record("draft", path=f"{path}.making")
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await writable.make(self._mkfs, path, size_bytes, lasting=True)
        with told(path):
            await asyncio.to_thread(self._clean)

    def _clean(self) -> None:
        """Remove all but those that were made last."""
        files = []
        for path in self._directory.glob("*.ext4"):
            with contextlib.suppress(FileNotFoundError):  # another is at it, too
                files.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(files)[:-_LIMIT]:
            path.unlink(missing_ok=True)


def _copy(ready: Path, path: Path) -> bool:
    """Whether there was one to be copied. It is closed here: a thread goes on when nobody waits for it any more."""
    draft = path.with_name(f"{path.name}.making")
    with told(path):
        try:
            source = os.open(ready, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, os.fstat(source).st_size)
                _copy_data(source, fd)
            finally:
                os.close(fd)
            draft.rename(path)
        finally:
            os.close(source)
            draft.unlink(missing_ok=True)
    return True


def _copy_data(source: int, target: int) -> None:
    """What is no hole (lseek(2), SEEK_DATA), to the same places."""
    end = 0
    while True:
        try:
            at = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            # Not by copy_file_range(2), which knows no way between two kinds of file systems.
            at += os.pwrite(target, os.pread(source, min(end - at, _PIECE), at), at)
