"""Frames over a connected socket: the only module that touches one.

Reading is pulled: bytes are taken from the socket only while somebody waits in `receive`, beyond asyncio's own
read buffer of at most 2 * BUFFER bytes. So whoever stops receiving stops the peer.

Writing never blocks and never mixes frames: a frame is handed over whole, in one call. Before that a sender
waits in `room` while more than BUFFER bytes have not left yet. So what waits to be written is at most BUFFER
bytes and one frame, however many senders there are.

Every error of the socket becomes `ConnectionClosed`.
"""

import asyncio
import socket

from ttrpc.frame import Decoder, Frame, FrameType, Oversized, encode
from ttrpc.status import ConnectionClosed

BUFFER = 256 << 10
READ = 64 << 10
"""Bytes asked for at a time. asyncio's 256 KiB are mapped by malloc(3) for each message and unmapped after it, however
short it is: page faults, and work for the kernel's RCU that keeps an idle guest awake for three ticks more."""


class Wire:
    """One connection. Made by `Wire.open`; owns the socket from then on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = Decoder()
        self._ended = False
        writer.transport.set_write_buffer_limits(high=BUFFER)
        # Of asyncio's selector transports: what they ask of recv(2) at a time.
        setattr(writer.transport, "max_size", READ)  # noqa: B010  not in its type

    @classmethod
    async def open(cls, sock: socket.socket) -> "Wire":
        """Takes a connected stream socket of any family. Raises ConnectionClosed if it is not connected any more."""
        try:
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock, limit=BUFFER)
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError):
                raise ConnectionClosed(f"the connection cannot be used: {error}") from error
            raise
        return cls(reader, writer)

    async def receive(self) -> Frame | Oversized | None:
        """The next frame; None when the peer has ended the connection between two frames.

        Raises ConnectionClosed when it broke, FramingError when the peer does not speak ttrpc.
        """
        while (item := self._decoder.next()) is None:
            try:
                data = await self._reader.read(BUFFER)
            except OSError as error:
                raise ConnectionClosed(f"the connection broke: {error}") from error
            if not data:
                return None
            self._decoder.feed(data)
        return item

    async def room(self) -> None:
        """Waits until a frame may be written. Write it before the next `await`.

        Raises ConnectionClosed.
        """
        while self._writer.transport.get_write_buffer_size() > BUFFER and not self._writer.is_closing():
            try:
                await self._writer.drain()
            except OSError as error:
                raise ConnectionClosed(f"the connection broke: {error}") from error
        if self._writer.is_closing():
            raise ConnectionClosed

    def write(self, stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> None:
        """Hands one frame over, whole. Lost without a word after the end: whoever reads finds out.

        Raises StatusError RESOURCE_EXHAUSTED if `data` are too long; nothing is written then.
        """
        frame = encode(stream_id, frame_type, flags, data)
        if not self._ended and not self._writer.is_closing():
            self._writer.write(frame)

    def end(self) -> None:
        """Tells the peer that nothing more comes, after what was written; what it sends can still be received."""
        if not self._ended and not self._writer.is_closing():
            self._ended = True
            self._writer.write_eof()

    async def close(self, flush_s: float) -> None:
        """Closes after what was written has left, or after `flush_s` seconds."""
        self._writer.close()
        try:
            async with asyncio.timeout(flush_s):
                await self._writer.wait_closed()
        except OSError:  # TimeoutError is one
            self.abort()

    def abort(self) -> None:
        """Closes at once; what was not sent is lost."""
        self._writer.transport.abort()
