"""The shim's side of the stdio connections, for tests."""

import asyncio
import socket

from api.frames import END, FrameReader


class DialledHost:
    """Stands where the shim is: accepts what the guest dials and reads its streams to their end."""

    def __init__(self) -> None:
        self.connections: dict[bytes, socket.socket] = {}
        self.refuse = b""
        """A token that is not accepted."""

    async def dial(self, token: bytes) -> socket.socket:
        if token == self.refuse:
            raise ConnectionRefusedError(111, "refused")
        guest, host = socket.socketpair()
        guest.setblocking(False)
        host.setblocking(False)
        self.connections[token] = host
        return guest

    async def read(self, token: bytes) -> bytes:
        """The whole stream, after which the connection is closed."""
        loop, frames, data = asyncio.get_running_loop(), FrameReader(), bytearray()
        connection = self.connections[token]
        while not frames.ended:
            received = await loop.sock_recv(connection, 1 << 20)
            if not received:
                raise ConnectionError("the stream has no end")
            for piece in frames.feed(memoryview(received)):
                data += piece
        connection.close()
        return bytes(data)

    async def write(self, token: bytes, data: bytes, *, end: bool) -> None:
        """One frame, and the stream's end if `end`."""
        frame = len(data).to_bytes(4, "big") + data if data else b""
        await asyncio.get_running_loop().sock_sendall(self.connections[token], frame + (END if end else b""))

    async def hung_up(self, token: bytes) -> bool:
        """Waits until the guest closes."""
        try:
            return not await asyncio.get_running_loop().sock_recv(self.connections[token], 1)
        except ConnectionError:
            return True
