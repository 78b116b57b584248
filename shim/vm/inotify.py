"""Waiting for a file to appear in a directory, by inotify(7): no polling."""

import asyncio
import ctypes
import os
from pathlib import Path
from typing import Final

from shim.errors import HostError

# linux/inotify.h
_IN_CREATE: Final = 0x100
_IN_MOVED_TO: Final = 0x80
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Tells of new names in a directory. Begin it before the file can appear; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise HostError(f"inotify: {os.strerror(ctypes.get_errno())}")
        if _libc.inotify_add_watch(self._fd, os.fsencode(directory), _IN_CREATE | _IN_MOVED_TO) < 0:
            reason = os.strerror(ctypes.get_errno())
            os.close(self._fd)
            raise HostError(f"{directory} cannot be watched: {reason}")

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    async def wait_for(self, path: Path) -> None:
        """Return once `path` exists. The caller sets the deadline."""
        loop = asyncio.get_running_loop()
        while not path.exists():
            changed: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._fd, _finish, changed)
            try:
                await changed
            finally:
                loop.remove_reader(self._fd)
            os.read(self._fd, 65536)


def _finish(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
