"""Accepting connections for as long as a listener lives."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

# After an accept that failed for want of descriptors or memory: how long to leave it alone.
SHORTAGE_PAUSE_S: Final = 0.1
_ITS_OWN: Final = frozenset({errno.ECONNABORTED, errno.EPROTO, errno.EPERM})
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


async def accept(listener: socket.socket, on_shortage: Callable[[str], None]) -> socket.socket:
    """The next connection, non-blocking; whatever became of others before it (accept(2), ERRORS).

    `on_shortage` is told what the kernel has too little of to accept any for now. Raises OSError where
    the listener cannot be asked again.
    """
    while True:
        # Else nothing on the loop would have its turn while there is somebody to accept, since asyncio does not wait
        # then, and a guest may dial faster than we hang up. It comes first: a cancel meanwhile loses no connection.
        await asyncio.sleep(0)
        try:
            connection, _ = await asyncio.get_running_loop().sock_accept(listener)
        except OSError as error:
            if error.errno in _ITS_OWN:
                continue
            if error.errno not in _SHORTAGE:
                raise
            on_shortage(f"no connection can be accepted for now: {error.strerror}")
            await asyncio.sleep(SHORTAGE_PAUSE_S)
        else:
            return connection
