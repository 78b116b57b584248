"""Carries one stream of a process between a descriptor (pipe or terminal) and its connection to the host.

Nothing is buffered beyond one piece: a reader that stops reading stops the process through its pipe, a process that
does not read stops the host through vsock's credits. Nothing a process wrote is lost at its end. If nobody listens
at the other end any more, output is still taken and dropped, so that the process never blocks.
"""

import asyncio
import errno
import fcntl
import os
import socket
from contextlib import suppress

from api.frames import END, HEADER, FrameReader
from vminitd.vsock import MOST_AT_ONCE

PIPE = 256 << 10
"""The size of the pipes."""

FRAME = MOST_AT_ONCE
"""Most bytes of one frame, its header included: as much as goes out in one write."""

_PIECE = 64 << 10  # received at once

# After so many pieces a stream lets others have their turn: as long as both of its sides are quick it never waits.
_TURN = 16

# Writing: the host has closed its end, or is gone.
_NOBODY_LISTENS = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})
# Writing to a process: it has closed its input, or its terminal is gone.
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO})


class Output:
    """From `source`, a non-blocking descriptor, to `connection`; both are closed at the end.

    Without a connection everything is dropped. `moved` counts the bytes taken so far.
    """

    def __init__(self, source: int, connection: socket.socket | None) -> None:
        self.moved = 0
        self._source = source
        self._connection = connection
        self._allowance: int | None = None
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Take what is in the pipe by now, and then end, though somebody still holds its other end."""
        if self._allowance is None and self._source >= 0:
            self._allowance = _capacity(self._source)
            self._wake.set()

    async def run(self) -> None:
        """Returns when the stream has ended and the host has closed the connection."""
        buffer = bytearray(FRAME)
        try:
            pieces = 0
            while size := await self._read(memoryview(buffer)[HEADER.size :]):
                HEADER.pack_into(buffer, 0, size)
                await self._send(memoryview(buffer)[: HEADER.size + size])
                self.moved += size
                pieces += 1
                if not pieces % _TURN:
                    await asyncio.sleep(0)
            self._close_source()
            await self._send(END)
            await self._closed_by_host()
        finally:
            self.close()

    def close(self) -> None:
        """Closes both sides; more than once does nothing."""
        self._close_source()
        self._close_connection()

    async def _read(self, room: memoryview) -> int:
        """Bytes read; 0 at the end of the stream."""
        while self._allowance is None or self._allowance > 0:
            try:
                size = os.readv(self._source, [room])
            except BlockingIOError:
                if self._allowance is not None:
                    return 0
                await self._readable()
                continue
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that no process has open any more: pty(7)
                    return 0
                raise
            if self._allowance is not None:
                self._allowance -= size
            return size
        return 0

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._wake.clear()
        loop.add_reader(self._source, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            loop.remove_reader(self._source)

    async def _send(self, data: memoryview | bytes) -> None:
        if self._connection is None:
            return
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, data)
        except OSError as error:
            if error.errno not in _NOBODY_LISTENS:
                raise
            self._close_connection()

    async def _closed_by_host(self) -> None:
        """The host has everything when it closes."""
        if self._connection is not None:
            with suppress(ConnectionError):
                await asyncio.get_running_loop().sock_recv(self._connection, 1)

    def _close_source(self) -> None:
        if self._source >= 0:
            os.close(self._source)
            self._source = -1

    def _close_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Input:
    """From `connection` to `sink`, a non-blocking descriptor; both are closed at the end, by which a pipe ends.

    Ends with the end frame, or as soon as the process closes its end of the pipe: the connection is closed then, by
    which the host knows. A terminal has no such end; there it ends with the frames, or by being cancelled.
    """

    def __init__(self, sink: int, connection: socket.socket, *, terminal: bool) -> None:
        self._sink = sink
        self._connection = connection
        self._terminal = terminal
        self._running: asyncio.Task[None] | None = None
        self._hung_up = False

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._running = asyncio.current_task()
        frames = FrameReader()
        buffer = bytearray(_PIECE)
        if not self._terminal:
            # A pipe's writing end becomes "readable" only by the error that nobody reads it any more: poll(2), POLLERR.
            loop.add_reader(self._sink, self._hang_up)
        try:
            pieces = 0
            while not frames.ended:
                size = await loop.sock_recv_into(self._connection, buffer)
                if size == 0:
                    return
                for piece in frames.feed(memoryview(buffer)[:size]):
                    await _write(self._sink, piece)
                pieces += 1
                if not pieces % _TURN:
                    await asyncio.sleep(0)
        except OSError as error:
            if error.errno not in _NOBODY_READS | _NOBODY_LISTENS:
                raise
        except asyncio.CancelledError:
            if not self._hung_up:
                raise
        finally:
            loop.remove_reader(self._sink)
            self.close()

    def close(self) -> None:
        """Closes both sides; more than once does nothing."""
        if self._sink >= 0:
            os.close(self._sink)
            self._sink = -1
        self._connection.close()

    def _hang_up(self) -> None:
        """Nobody reads any more: the wait for the host's next piece is over, too."""
        asyncio.get_running_loop().remove_reader(self._sink)
        assert self._running is not None
        self._hung_up = True
        self._running.cancel()


async def _write(sink: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(sink, data) :]
        except BlockingIOError:
            await _writable(sink)


async def _writable(sink: int) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_writer(sink, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_writer(sink)


def _capacity(source: int) -> int:
    """How much can be in the pipe; a terminal holds less than PIPE."""
    try:
        return fcntl.fcntl(source, fcntl.F_GETPIPE_SZ)
    except OSError:
        return PIPE
