"""Which snapshot a directory of the host's is: told from every other one that ever had its path.

containerd gives no second snapshot the same number, but a second containerd root at the same place does, and inode
numbers are used again. A directory's times change with what is in it; its birth does not, and nobody can set it
(statx(2), stx_btime). The device's number is no part of it: it may be another one after the next boot.
"""

import ctypes
import errno
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import HostError

_AT_FDCWD: Final = -100
_STATX_BTIME: Final = 0x800
# struct statx: stx_mask at 0, stx_ino at 32, stx_btime's seconds and nanoseconds at 80.
_STATX_BYTES: Final = 256
_MASK: Final = struct.Struct("=I")
_INODE: Final = struct.Struct("=Q")
_TIME: Final = struct.Struct("=qI")
_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An active snapshot, by the directory that takes its writes.

    `birth_ns` is 0 where the file system knows none. `store` is what tells the directory of all snapshots of its
    snapshotter from another one at that place.
    """

    directory: Path
    inode: int
    birth_ns: int
    store: str

    @property
    def key(self) -> str:
        """A name for it that no other snapshot of this host has or had."""
        return hashlib.sha256(repr((str(self.directory), self.inode, self.birth_ns)).encode()).hexdigest()[:32]


def identify(directory: Path) -> Snapshot:
    """The snapshot whose writes go to `directory`. Raises HostError where there is no such directory."""
    return Snapshot(directory, *birth(directory), _store(directory))


def _store(directory: Path) -> str:
    # .../snapshots/42/fs, or, of the native snapshotter, .../snapshots/42
    number = directory if directory.name.isdigit() else directory.parent
    return repr(birth(number.parent))


def birth(directory: Path) -> tuple[int, int]:
    """Inode number and time of birth (ns since 1970), which is 0 where it is not known. Raises HostError."""
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(_AT_FDCWD, os.fsencode(directory), 0, _STATX_BTIME, buffer) != 0:
        number = ctypes.get_errno()
        raise HostError(f"snapshot {directory}: {os.strerror(number)}") from OSError(number, os.strerror(number))
    (mask,) = _MASK.unpack_from(buffer)
    (inode,) = _INODE.unpack_from(buffer, 32)
    seconds, nanoseconds = _TIME.unpack_from(buffer, 80) if mask & _STATX_BTIME else (0, 0)
    return inode, seconds * 1_000_000_000 + nanoseconds


def is_gone(snapshot: Snapshot) -> bool | None:
    """Whether it has been removed; None where that cannot be told, because what is there is not what was there.

    Where its snapshotter keeps them may be on a disk that is not mounted (yet), or in a mount namespace that is not
    ours; or something is mounted on it.
    """
    try:
        if _store(snapshot.directory) != snapshot.store:
            return None
    except HostError:
        return None
    try:
        return False if identify(snapshot.directory) == snapshot else None
    except HostError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOENT, errno.ENOTDIR):
            return True
        raise
