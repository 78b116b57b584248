"""Looks a directory tree over before and after it is converted: whether it has holes, whether it stood still.

It takes 3 µs an entry (54,000 entries: 0.16 s; mkfs.erofs has 5 s to do with them; 2026-11).
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import HostError

# Holes of less in one file are not worth an image of another kind.
WORTHWHILE_BYTES: Final = 1 << 20
# So much of a path is shown that may be as long as paths can be.
_SHOWN: Final = 200
# What `du` counts in, whatever the file system's blocks are (stat(2)).
_STAT_BLOCK: Final = 512


@dataclass(frozen=True, slots=True)
class Survey:
    """A tree at one moment.

    `entries` and `changed_ns`, the newest change of an inode that counts nobody's reading, are the same only as long as
    nothing in the tree changes. `sparse_bytes` is the size of the largest file with holes; 0 where none is worth it.
    """

    entries: int
    changed_ns: int
    sparse_bytes: int


def survey(directory: Path) -> Survey:
    """Look at every entry of the tree. Blocks. Raises HostError that names the path."""
    entries, sparse_bytes = 0, 0
    path = os.fspath(directory)
    try:
        changed_ns = os.stat(path).st_ctime_ns
        pending = [path]
        while pending:
            path = pending.pop()
            with os.scandir(path) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    entries += 1
                    changed_ns = max(changed_ns, status.st_ctime_ns)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif (  # a file system that compresses has few blocks, too, so the holes are looked at
                        status.st_size - status.st_blocks * _STAT_BLOCK >= WORTHWHILE_BYTES
                        and status.st_size > sparse_bytes
                        and entry.is_file(follow_symlinks=False)
                        and _holes(entry.path, status.st_size) >= WORTHWHILE_BYTES
                    ):
                        sparse_bytes = status.st_size
    except OSError as error:
        below = os.path.relpath(str(error.filename or path), directory)
        within = f" {below[:_SHOWN]}:" if below != "." else ""
        raise HostError(f"layer {directory}:{within} {error.strerror}") from error
    return Survey(entries, changed_ns, sparse_bytes)


def _holes(path: str, size: int) -> int:
    """How many bytes of the file are holes; it stops counting once they are worthwhile."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        holes, at = 0, 0
        while at < size and holes < WORTHWHILE_BYTES:
            hole = os.lseek(fd, at, os.SEEK_HOLE)
            at = _data_after(fd, hole, size)
            holes += at - hole
        return holes
    finally:
        os.close(fd)


def _data_after(fd: int, hole: int, size: int) -> int:
    try:
        return os.lseek(fd, hole, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing but a hole up to the end
            raise
        return size
