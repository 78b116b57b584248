"""The far ends of a stream: a guest's connection, here a socket pair, and the client's side of a FIFO."""

import asyncio
import os
import socket
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from api.frames import FrameReader, header

_Result = TypeVar("_Result")


async def soon(what: Awaitable[_Result]) -> _Result:
    """No test waits for ever."""
    return await asyncio.wait_for(what, 30)


class Guest:
    """The other end of a connection: writes and reads frames."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
        self._frames = FrameReader()

    async def send(self, data: bytes) -> None:
        """Write what is no frame, or a whole one."""
        await soon(asyncio.get_running_loop().sock_sendall(self.theirs, data))

    async def frame(self, data: bytes) -> None:
        """Write one frame."""
        await self.send(header(len(data)) + data)

    async def receive(self) -> bytes:
        """What comes until the end frame, or until the connection is closed."""
        got = bytearray()
        while not self._frames.ended:
            data = await soon(asyncio.get_running_loop().sock_recv(self.theirs, 65536))
            if not data:
                break
            for piece in self._frames.feed(memoryview(data)):
                got += piece
        return bytes(got)

    @property
    def ended(self) -> bool:
        """Whether the end frame has come."""
        return self._frames.ended

    @property
    def broken(self) -> bool:
        """Whether it was that of a stream that was cut short."""
        return self._frames.broken

    async def closed(self) -> bool:
        """Wait for the shim to close its end."""
        try:
            return not await soon(asyncio.get_running_loop().sock_recv(self.theirs, 1))
        except ConnectionError:
            return True

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


def read_end(path: Path) -> int:
    """A client that reads."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def write_end(path: Path) -> int:
    """A client that writes."""
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


async def read_all(fd: int, *, piece: int = 65536, limit: int = 1 << 62) -> bytes:
    """Read until the end of file, in pieces, as slowly as the loop goes round."""
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < limit:
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await soon(readable.wait())
        finally:
            loop.remove_reader(fd)
        data = os.read(fd, min(piece, limit - len(got)))
        if not data:
            break
        got += data
    return bytes(got)
