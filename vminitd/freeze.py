"""Freezing a file system: all of it is on its disk, and nothing is written until it is thawed (ioctl_fs(2), FIFREEZE).

Every file system is one container's own, so that none can be frozen twice.
"""

import errno
import fcntl
import os

_FIFREEZE = 0xC0045877  # _IOWR('X', 119, int), linux/fs.h
_FITHAW = 0xC0045878


def freeze_filesystem(path: str) -> None:
    """Writes everything back and stops writes to the file system mounted at `path`. Blocks. Raises OSError."""
    _control(path, _FIFREEZE)


def thaw_filesystem(path: str) -> None:
    """Undoes it; nothing if it is not frozen. Raises OSError."""
    try:
        _control(path, _FITHAW)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def _control(path: str, command: int) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(directory, command, 0)
    finally:
        os.close(directory)
