"""Processes in a network namespace that dial."""

import asyncio
import socket
from typing import Final

from shim.network.netns import within
from tests.unit.shim.network.places import Place

SECONDS: Final = 10


def client(place: Place, address: str, port: int, scope: int = 0) -> socket.socket:
    """A connection that a process in there makes, with a timeout. Raises OSError."""
    is_six = ":" in address

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET)
        sock.settimeout(SECONDS)
        try:
            sock.connect((address, port, 0, scope) if is_six else (address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    return within(place.fd, connect)


async def dial(place: Place, port: int, address: str = "127.0.0.1", scope: int = 0) -> socket.socket:
    """The same for an event loop, and non-blocking."""
    sock = await asyncio.to_thread(client, place, address, port, scope)
    sock.setblocking(False)
    return sock
