"""Carries streams between the guest's connections and what is at their host's end: a FIFO, a logger, a TCP connection.

Nothing is dropped and nothing buffered beyond one piece. Output: a reader that stops reading
stops the guest's writer, through vsock's credits and the writer's own pipe. The stream is over
at the end frame, or with the connection when the machine is gone.
"""

import asyncio
import contextlib
import socket
from typing import Final, Protocol

from api.frames import BROKEN, END, FrameReader, header

_PIECE: Final = 256 << 10
# Frames that are passed on before everything else on the loop has its turn. A guest may make them a byte long, and send
# more of them than can be passed on: nothing here would ever wait.
_FRAMES_A_TURN: Final = 256


class Source(Protocol):
    """Where what goes to the guest comes from."""

    async def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; empty at the end. Raises OSError where the rest cannot be had."""

    def close(self) -> None:
        """It is not read any more."""


class Sink(Protocol):
    """Where what comes from the guest goes."""

    async def write(self, data: memoryview) -> None:
        """Write all of `data`, waiting for the reader as long as it takes. Raises OSError."""

    def close(self) -> None:
        """There is no more."""


class Streams(Protocol):
    """The host's ends of what is told the guest as Stdio."""

    @property
    def names(self) -> tuple[str, ...]:
        """Which of stdin, stdout and stderr there are."""

    def connect(self, name: str, connection: socket.socket) -> None:
        """Begin to carry one stream over a connection that the guest has dialled for it, which belongs to it now."""


async def relay_output(connection: socket.socket, sink: Sink) -> bool:
    """Copy from the guest to `sink` until the stream ends, then close both: whether it came whole."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(_PIECE)
    frames = FrameReader()
    try:
        while not frames.ended:
            try:
                size = await loop.sock_recv_into(connection, buffer)
            except ConnectionError:  # the machine is gone: its exit is told by who watches it
                break
            if size == 0:
                break
            for number, piece in enumerate(frames.feed(memoryview(buffer)[:size]), start=1):
                await sink.write(piece)
                if number % _FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        connection.close()
        sink.close()
    return frames.whole


async def relay_input(connection: socket.socket, source: Source) -> bool:
    """Copy from `source` to the guest until its end, or until the guest takes no more, then close both.

    The answer is whether the guest has taken all of it. A source that cannot be read is said to be
    cut short, and its OSError is raised.
    """
    gone = asyncio.create_task(_closed_by_peer(connection))
    copying = asyncio.create_task(_copy_input(connection, source))
    try:
        await asyncio.wait([gone, copying], return_when=asyncio.FIRST_COMPLETED)
        whole = copying.done() and copying.result()
        if whole:
            # The receiver of the end closes: until then the last bytes may still be on their way.
            await gone
        return whole
    finally:
        for task in (gone, copying):
            task.cancel()
        await asyncio.gather(gone, copying, return_exceptions=True)
        connection.close()
        source.close()


async def _copy_input(connection: socket.socket, source: Source) -> bool:
    """Whether the guest was sent all of it, and the end."""
    try:
        while data := await source.read(_PIECE):
            if not await _send(connection, header(len(data)) + data):
                return False
            # Neither has waited where there is always something to read, and the guest takes it at once.
            await asyncio.sleep(0)
        return await _send(connection, END)
    except OSError:
        await _send(connection, BROKEN)
        raise


async def _send(connection: socket.socket, data: bytes) -> bool:
    """Whether there was still somebody to take it: the process may have closed its input."""
    try:
        await asyncio.get_running_loop().sock_sendall(connection, data)
    except ConnectionError:
        return False
    return True


async def _closed_by_peer(connection: socket.socket) -> None:
    """Return when the guest has closed an input connection; it never sends anything on one."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_recv(connection, 1)
