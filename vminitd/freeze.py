"""Freezing a file system: all of it is on its disk, and nothing is written until it is thawed (ioctl_fs(2))."""

import errno
import fcntl
import os
import threading
from collections.abc import Sequence

from vminitd.libc import sync_filesystem

_FIFREEZE = 0xC0045877  # _IOWR('X', 119, int), linux/fs.h
_FITHAW = 0xC0045878


class Freezes:
    """One freeze of several file systems, by where they are mounted. Both calls are as those of FilesystemFreeze."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._freezes = [FilesystemFreeze(path) for path in paths]

    def freeze(self) -> None:
        """One after the other. Raises OSError; those before it are left for `thaw`."""
        for each in self._freezes:
            each.freeze()

    def thaw(self) -> None:
        """The last first; all are tried. Raises the first OSError."""
        errors = []
        for each in reversed(self._freezes):
            try:
                each.thaw()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]


class FilesystemFreeze:
    """One freeze of the file system mounted at `path`.

    Both calls block, so they are made in threads, and a freeze that nobody waits for any more cannot be stopped.
    `thaw` may be called at any time, and then holds for good: a freeze under way undoes itself once it is done.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Guards the two below. Never held during a system call.
        self._lock = threading.Lock()
        self._frozen = False
        self._called_off = False

    def freeze(self) -> None:
        """Writes everything back, then stops writes. Raises OSError.

        What takes long is the writing back, which is done first and stops nobody. One that is frozen already (whoever
        is root inside and may mount can do that) is left to whoever froze it.
        """
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_filesystem(directory)
            if self._called_off:
                return
            try:
                fcntl.ioctl(directory, _FIFREEZE, 0)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                return
            with self._lock:
                self._frozen = not self._called_off
            if not self._frozen:
                fcntl.ioctl(directory, _FITHAW, 0)
        finally:
            os.close(directory)

    def thaw(self) -> None:
        """Lets it be written to again. Raises OSError."""
        with self._lock:
            self._called_off = True
            if not self._frozen:
                return
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(directory, _FITHAW, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is not frozen any more
                raise
        finally:
            os.close(directory)
        self._frozen = False
