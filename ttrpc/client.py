"""The calling side of one connection.

Each call takes the next odd number as its stream, and waits in its own task for what one reading task hands out.
A call that is given up (cancelled, out of time) is forgotten: what still comes for it is dropped.

ttrpc has no frame that says "cancelled", and the Go client sends nothing. We send the server a Response frame with
the status CANCELLED on that stream: a Response never goes that way otherwise, the Go server passes over frames of
types that it does not expect, and our own cancels the handler.
"""

import asyncio
import socket
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from ttrpc.frame import (
    MAX_DATA,
    MAX_STREAM_ID,
    NO_DATA,
    REMOTE_CLOSED,
    Frame,
    FrameType,
    FramingError,
    Oversized,
    too_long,
)
from ttrpc.messages import Metadata, decode_reply, decode_response, encode_request, encode_status, late
from ttrpc.status import Code, ConnectionClosed, StatusError
from ttrpc.wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ttrpc.stream import Stream

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)

FLUSH_S = 1.0
"""How long `close` waits for what was written to leave."""

FRAMES_A_TURN = 64
"""Frames that are read before everything else on the loop has its turn: half a megabyte may hold fifty thousand."""

_CANCELLED = encode_status(StatusError(Code.CANCELLED, "cancelled by the client"))


class Receiver(Protocol):
    """Whoever waits for the frames of one stream."""

    async def on_frame(self, frame: Frame) -> None:
        """One frame came. While this waits, nothing is read for any stream of the connection."""

    def on_end(self, error: StatusError) -> None:
        """Nothing more comes, because of `error`."""


class _Reply:
    """The receiver of a unary call."""

    def __init__(self) -> None:
        # Errors are results here: a future with an exception that nobody fetches any more would be logged.
        self.future: asyncio.Future[bytes | StatusError] = asyncio.get_running_loop().create_future()

    async def on_frame(self, frame: Frame) -> None:
        if frame.type == FrameType.RESPONSE:
            self._settle(frame.data)
        else:
            self._settle(StatusError(Code.INTERNAL, f"a unary call was answered by a frame of type {frame.type}"))

    def on_end(self, error: StatusError) -> None:
        self._settle(error)

    def _settle(self, result: bytes | StatusError) -> None:
        if not self.future.done():
            self.future.set_result(result)


class Client:
    """Calls the services at the other end of a connected stream socket, which it owns from now on.

    To be made while the event loop runs. Any number of tasks may call at the same time. `calls_before` says how many
    calls this connection has had already, by another client, whose numbers must not be used again. Frames with more
    than `most_data` bytes are taken for what exceeds the limit, where the protocol's own (4 MiB) is more than a server
    that is not trusted may have decoded: messages take up to thirty times their bytes.
    """

    def __init__(self, sock: socket.socket, *, calls_before: int = 0, most_data: int = MAX_DATA) -> None:
        loop = asyncio.get_running_loop()
        self._sock = sock
        self._wire: Wire | None = None
        self._opened = asyncio.Event()
        self._receivers: dict[int, Receiver] = {}
        self._next_id = 1 + 2 * calls_before
        self._most_data = most_data
        self._gone: ConnectionClosed | None = None
        self._closed: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(), name="ttrpc client")
        self._task.add_done_callback(self._on_done)

    @property
    def closed(self) -> "asyncio.Future[None]":
        """Done when the connection is gone, whoever closed it. Each look gives a future that may be cancelled."""
        return asyncio.shield(self._closed)

    async def close(self) -> None:
        """Closes the connection. Calls under way end with ConnectionClosed."""
        self._end(ConnectionClosed("this side closed the connection"))
        if self._wire is not None:
            await self._wire.close(FLUSH_S)
        self._task.cancel()
        await self.closed

    async def call(
        self,
        path: str,
        request: Req,
        reply_type: type[Resp],
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> Resp:
        """One unary call of the method "/package.Service/Method".

        Raises the StatusError that the server answers; DEADLINE_EXCEEDED after `timeout_s` seconds (None: for ever);
        RESOURCE_EXHAUSTED if request or reply exceed 4 MiB; ConnectionClosed.
        """
        if timeout_s is not None and timeout_s <= 0:
            raise late(path, timeout_s)
        data = encode_request(path, request.SerializeToString(), timeout_s, metadata)
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._exchange(data)
        except TimeoutError:
            raise late(path, timeout_s or 0) from None
        if isinstance(result, StatusError):
            raise result
        return decode_reply(reply_type, decode_response(result))

    def stream(
        self,
        path: str,
        reply_type: type[Resp],
        *,
        request: Req | None,
        streams_out: bool,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> "Stream[Req, Resp]":
        """A call of a streaming method; `request` is None if it takes a stream of them."""
        from ttrpc.stream import Stream  # most processes never need it

        return Stream(
            self,
            path,
            reply_type,
            request=request,
            streams_out=streams_out,
            timeout_s=timeout_s,
            metadata=metadata,
        )

    # For streams: what they need of the connection.

    async def ready(self) -> Wire:
        """The connection, with room to write one frame before the next `await`. Raises ConnectionClosed."""
        await self._opened.wait()
        if self._wire is not None:
            await self._wire.room()
        if self._gone is not None or self._wire is None:
            raise ConnectionClosed(self._gone.message if self._gone is not None else "the connection was never there")
        return self._wire

    def start(self, wire: Wire, receiver: Receiver, flags: int, data: bytes) -> int:
        """Sends a Request frame on a new stream; `receiver` gets what comes. The result is the stream's number.

        To be called right after `ready`. Numbers go out in the order in which they are given.
        """
        stream_id = self._next_id
        if stream_id > MAX_STREAM_ID:
            raise StatusError(Code.RESOURCE_EXHAUSTED, "no stream numbers are left on this connection: connect again")
        wire.write(stream_id, FrameType.REQUEST, flags, data)
        self._next_id += 2
        self._receivers[stream_id] = receiver
        return stream_id

    def forget(self, stream_id: int) -> None:
        """The stream is at its end: what comes for it is dropped from now on."""
        self._receivers.pop(stream_id, None)

    def cancel(self, stream_id: int, *, end_data: bool = False) -> None:
        """Gives a stream up and tells the server, `end_data` with an end of our data first (a Go server sees that)."""
        if self._receivers.pop(stream_id, None) is None or self._wire is None:
            return
        if end_data:
            self._wire.write(stream_id, FrameType.DATA, REMOTE_CLOSED | NO_DATA, b"")
        self._wire.write(stream_id, FrameType.RESPONSE, 0, _CANCELLED)

    async def _exchange(self, data: bytes) -> bytes | StatusError:
        reply = _Reply()
        stream_id = self.start(await self.ready(), reply, 0, data)
        try:
            result = await reply.future
        except asyncio.CancelledError:
            self.cancel(stream_id)
            raise
        self.forget(stream_id)
        return result

    async def _run(self) -> None:
        """The reading task."""
        try:
            self._wire = await Wire.open(self._sock)
            self._opened.set()
            frames = 0
            while (item := await self._wire.receive()) is not None:
                await self._dispatch(item)
                frames += 1
                if frames % FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)
        except ConnectionClosed as error:
            self._end(error)
        except FramingError as error:
            self._end(ConnectionClosed(f"the peer does not speak ttrpc: {error}"))

    async def _dispatch(self, item: Frame | Oversized) -> None:
        receiver = self._receivers.get(item.stream_id)
        if receiver is None:
            return
        if isinstance(item, Oversized):
            self.cancel(item.stream_id)
            receiver.on_end(too_long(item.length))
        elif len(item.data) > self._most_data:
            self.cancel(item.stream_id)
            receiver.on_end(too_long(len(item.data), self._most_data))
        else:
            await receiver.on_frame(item)

    def _end(self, reason: ConnectionClosed) -> None:
        """No more calls; those under way end with `reason`, the first one given."""
        if self._gone is None:
            self._gone = reason
        self._opened.set()
        receivers, self._receivers = self._receivers, {}
        for receiver in receivers.values():
            receiver.on_end(ConnectionClosed(self._gone.message))

    def _on_done(self, _task: "asyncio.Task[None]") -> None:
        # A callback, not a `finally`: a task that is cancelled before its first step runs none.
        self._end(ConnectionClosed())
        if self._wire is not None:
            self._wire.abort()
        else:
            self._sock.close()
        self._closed.set_result(None)
