"""Waiting for the kernel's word on files and directories, by inotify(7): no polling.

What has happened is not told, only that something has: whoever waits looks for himself. So it makes no difference that
the kernel's queue may have overflowed.
"""

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import Final

from shim.descriptors import readable
from shim.errors import HostError

# linux/inotify.h
IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
_libc: Final = ctypes.CDLL(None, use_errno=True)

_READ_BYTES: Final = 65536


class Watch:
    """Tells that something has happened to what it was given to watch. Begin it before that can be; a context manager.

    A user may have 128 of them at a time, where the host has the kernel's default. Raises HostError for one more.
    """

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise HostError(
                f"inotify: {os.strerror(number)}",
                hint="raise the host's fs.inotify.max_user_instances" if number == errno.EMFILE else "",
            )

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch nothing any more. Whoever waits must have been cancelled before."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def add(self, path: Path | str, events: int) -> int:
        """Watch what is at `path` now, for `events`, a sum of IN_*. Raises HostError where the kernel will not.

        The answer is a number that stands for this very file or directory as long as it exists, and for no other later.
        """
        number: int = _libc.inotify_add_watch(self._fd, os.fsencode(path), events)
        if number < 0:
            raise HostError(f"{path} cannot be watched: {os.strerror(ctypes.get_errno())}")
        return number

    def remove(self, number: int) -> None:
        """Do not watch what `add` gave this number."""
        _libc.inotify_rm_watch(self._fd, number)

    async def event(self) -> None:
        """Return once something has happened that was not told of before. The caller sets the deadline, if any."""
        await readable(self._fd)
        self.forget()

    def forget(self) -> None:
        """What has happened by now need not be told. Of very many events some are told all the same."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, _READ_BYTES)


async def appears(path: Path, watch: Watch) -> None:
    """Return once `path` exists; `watch` has its directory, for new names. The caller sets the deadline."""
    while not path.exists():
        await watch.event()
