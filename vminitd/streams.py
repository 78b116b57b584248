"""Carries one stream between a descriptor (pipe, terminal or TCP socket) and its connection to the host.

Nothing is buffered beyond one piece: a reader that stops reading stops the process through its pipe, a process that
does not read stops the host through vsock's credits. Nothing a process wrote is lost at its end. If nobody listens
at the other end any more, a process's output is still taken and dropped, so that it never blocks.
"""

import asyncio
import enum
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from api.frames import BROKEN, END, HEADER, FrameReader
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
# Writing to a process: it has closed its input, or its terminal is gone; or a connection was reset.
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.ECONNRESET})
# Reading from a connection: it was reset, or its peer is not there any more.
_CUT_SHORT = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT})


class Output:
    """From `source`, a non-blocking descriptor, to `connection`; both are closed at the end.

    Without a connection everything is dropped, and once nobody listens there any more, unless it is `needed`: then
    `run` raises ConnectionError. `moved` counts the bytes taken so far. A terminal that nobody has open any more is at
    its end, unless `reopened` says that it goes on.
    """

    def __init__(
        self,
        source: int,
        connection: socket.socket | None,
        *,
        needed: bool = False,
        reopened: Callable[[], bool] = lambda: False,
    ) -> None:
        self.moved = 0
        self._needed = needed
        self._reopened = reopened
        self._broken = False
        self._sending = False
        self._source = source
        self._connection = connection
        self._allowance: int | None = None
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Take what is in the pipe by now, and then end, though somebody still holds its other end."""
        if self._allowance is None and self._source >= 0:
            self._allowance = _capacity(self._source)
            self._wake.set()

    def break_off(self) -> None:
        """What comes is no longer all there is: the host is told so at the stream's end."""
        self._broken = True

    async def run(self) -> bool:
        """Returns when the stream has ended and the host has closed the connection: whether it was all there is."""
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
            await self._send(BROKEN if self._broken else END)
            await self._closed_by_host()
        except BaseException:
            self._say_broken()
            raise
        finally:
            self.close()
        return not self._broken

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
                    if self._reopened():
                        continue
                    return 0
                if error.errno in _CUT_SHORT:
                    self.break_off()
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
        self._sending = True
        try:
            await asyncio.get_running_loop().sock_sendall(self._connection, data)
        except OSError as error:
            if error.errno not in _NOBODY_LISTENS or self._needed:
                raise
            self._close_connection()
        self._sending = False

    def _say_broken(self) -> None:
        """Given up before its end: the host must not take what came for all. If it can be said between two frames."""
        if self._connection is not None and not self._sending:
            with suppress(OSError):
                self._connection.send(BROKEN)

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


class Taken(enum.Enum):
    """How much of an input was taken."""

    WHOLE = "all of it, to its end"
    CUT = "what came of it; the host is gone, or says that there is no more to be had"
    REFUSED = "what the process wanted of it"


class Input:
    """From `connection` to `sink`, a non-blocking descriptor; both are closed at the end, by which a pipe ends.

    Ends with the end frame, or as soon as the process closes its end of the `pipe`: the connection is closed then, by
    which the host knows. What is not a pipe has no such end; there it ends with the frames, when nothing more can be
    written (and `reopened` does not say that it goes on), or by being cancelled.
    """

    def __init__(
        self, sink: int, connection: socket.socket, *, pipe: bool, reopened: Callable[[], bool] = lambda: False
    ) -> None:
        self._reopened = reopened
        self._sink = sink
        self._connection = connection
        self._pipe = pipe
        self._running: asyncio.Task[Taken] | None = None
        self._hung_up = False

    async def run(self) -> Taken:
        self._running = asyncio.current_task()
        loop = asyncio.get_running_loop()
        if self._pipe:
            # A pipe's writing end becomes "readable" only by the error that nobody reads it any more: poll(2), POLLERR.
            loop.add_reader(self._sink, self._hang_up)
        try:
            return await self._copy()
        except asyncio.CancelledError:
            if not self._hung_up:
                raise
            return Taken.REFUSED
        finally:
            if self._pipe:
                loop.remove_reader(self._sink)
            self.close()

    async def _copy(self) -> Taken:
        loop = asyncio.get_running_loop()
        frames = FrameReader()
        buffer = bytearray(_PIECE)
        pieces = 0
        while not frames.ended:
            try:
                size = await loop.sock_recv_into(self._connection, buffer)
            except OSError as error:
                if error.errno not in _NOBODY_LISTENS:
                    raise
                size = 0
            if size == 0:
                return Taken.CUT
            for piece in frames.feed(memoryview(buffer)[:size]):
                if not await self._write(piece):
                    return Taken.REFUSED
            pieces += 1
            if not pieces % _TURN:
                await asyncio.sleep(0)
        return Taken.WHOLE if frames.whole else Taken.CUT

    async def _write(self, data: memoryview) -> bool:
        """Whether all of it was taken, and not less because nobody reads any more."""
        while data:
            try:
                data = data[os.write(self._sink, data) :]
            except BlockingIOError:
                await _writable(self._sink)
            except OSError as error:
                if error.errno not in _NOBODY_READS:
                    raise
                if error.errno != errno.EIO or not self._reopened():
                    return False
        return True

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
