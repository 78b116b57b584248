"""The serving side of one connection: reads frames, starts calls, refuses what is wrong.

A frame that is well-formed but wrong (a number used twice, an unknown method, data that cannot be decoded) is
answered on its stream and the connection goes on. Bytes that are no frames end the connection, and only this one.
When the connection ends, for whatever reason, the handlers of its calls are cancelled.
"""

import asyncio
from collections.abc import Mapping

from ttrpc.call import Call, OnError
from ttrpc.context import Context, Peer
from ttrpc.frame import REMOTE_OPEN, Frame, FrameType, FramingError, Oversized, too_long
from ttrpc.messages import NANOSECONDS, decode_request, encode_status, read_metadata
from ttrpc.request_pb2 import Request
from ttrpc.service import Method
from ttrpc.status import Code, ConnectionClosed, StatusError
from ttrpc.wire import Wire

CANCEL_S = 5.0
"""How long a cancelled handler may take to clean up before it is left behind, and told of."""

MAX_CALLS = 4096
"""Calls under way on one connection; more are refused, because each keeps its request in memory."""

_SHUTDOWN = StatusError(Code.UNAVAILABLE, "the server is shutting down")


class Connection:
    """One client's connection."""

    def __init__(self, wire: Wire, peer: Peer, methods: Mapping[str, Method], on_error: OnError) -> None:
        self._wire = wire
        self._peer = peer
        self._methods = methods
        self._on_error = on_error
        self._calls: dict[int, Call] = {}
        self._last_id = 0
        self._refusing = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the socket is closed and the handlers are over."""

    async def run(self) -> None:
        """Serves until the peer is gone, the connection is closed, or this task is cancelled."""
        try:
            while (item := await self._wire.receive()) is not None:
                await self._on_item(item)
        except ConnectionClosed:
            pass  # the usual end, only less polite
        except FramingError as error:
            self._on_error(f"connection from {self._peer}", error)
        finally:
            self._wire.abort()
            try:
                await self._cancel_calls()
            finally:
                self.ended.set_result(None)

    def tasks(self) -> list["asyncio.Task[None]"]:
        """The handlers that are running."""
        return [call.task for call in self._calls.values()]

    def refuse(self) -> None:
        """From now on every request is answered UNAVAILABLE."""
        self._refusing = True

    def drop_calls(self) -> None:
        """Answers every call UNAVAILABLE and cancels its handler."""
        for stream_id, call in list(self._calls.items()):
            call.drop()
            self._wire.write(stream_id, FrameType.RESPONSE, 0, encode_status(_SHUTDOWN))

    def end(self) -> None:
        """Tells the peer, after all answers, that nothing more comes."""
        self._wire.end()

    def abort(self) -> None:
        self._wire.abort()

    async def _on_item(self, item: Frame | Oversized) -> None:
        error = self._number_error(item)
        if error is None:
            if isinstance(item, Oversized):
                error = too_long(item.length)
            elif item.type == FrameType.REQUEST:
                error = self._on_request(item)
            elif item.type == FrameType.DATA:
                error = await self._on_data(item)
            elif item.type == FrameType.RESPONSE:
                self._drop(item.stream_id)  # our clients' way to cancel a call; see ttrpc.client
            # Types to come are passed over, as the Go server does.
        if error is not None:
            self._drop(item.stream_id)
            await self._refuse(item.stream_id, error)

    def _number_error(self, item: Frame | Oversized) -> StatusError | None:
        """What is wrong with the stream's number, if something is. Counts the number of a request as used."""
        if item.stream_id % 2 == 0:
            return StatusError(Code.INVALID_ARGUMENT, "a client's streams have odd numbers")
        if item.type == FrameType.REQUEST:
            if item.stream_id <= self._last_id:
                return StatusError(Code.INVALID_ARGUMENT, "a new stream's number must be above all earlier ones")
            self._last_id = item.stream_id
        return None

    def _on_request(self, frame: Frame) -> StatusError | None:
        """Starts a call; the result is why not, if not."""
        if self._refusing:
            return _SHUTDOWN
        if len(self._calls) >= MAX_CALLS:
            return StatusError(Code.RESOURCE_EXHAUSTED, f"{MAX_CALLS} calls are under way on this connection already")
        try:
            request = decode_request(frame.data)
        except StatusError as error:
            return error
        path = f"/{request.service}/{request.method}"
        method = self._methods.get(path)
        if method is None:
            return self._unknown(request)
        context = Context(
            method=path,
            metadata=read_metadata(request),
            timeout_s=request.timeout_nano / NANOSECONDS if request.timeout_nano else None,
            peer=self._peer,
        )
        call = Call(
            self._wire,
            frame.stream_id,
            method,
            payload=request.payload,
            context=context,
            more=bool(frame.flags & REMOTE_OPEN),
            on_error=self._on_error,
        )
        self._calls[frame.stream_id] = call
        call.task.add_done_callback(lambda _task: self._calls.pop(frame.stream_id, None))
        return None

    def _unknown(self, request: Request) -> StatusError:
        prefix = f"/{request.service}/"
        if any(path.startswith(prefix) for path in self._methods):
            return StatusError(Code.UNIMPLEMENTED, f"service {request.service} has no method {request.method!r}")
        return StatusError(Code.UNIMPLEMENTED, f"there is no service {request.service!r}")

    async def _on_data(self, frame: Frame) -> StatusError | None:
        call = self._calls.get(frame.stream_id)
        if call is not None:
            return await call.on_data(frame)
        if frame.stream_id <= self._last_id:
            return None  # crossed our answer on the way
        return StatusError(Code.INVALID_ARGUMENT, "data came for a stream without a request")

    def _drop(self, stream_id: int) -> None:
        call = self._calls.get(stream_id)
        if call is not None:
            call.drop()

    async def _refuse(self, stream_id: int, error: StatusError) -> None:
        await self._wire.room()
        self._wire.write(stream_id, FrameType.RESPONSE, 0, encode_status(error))

    async def _cancel_calls(self) -> None:
        """Cancels every handler and waits for it to clean up."""
        calls = list(self._calls.values())
        for call in calls:
            call.drop()
        if not calls:
            return
        _done, left = await asyncio.wait([call.task for call in calls], timeout=CANCEL_S)
        for task in left:
            self._on_error(
                task.get_name(), TimeoutError(f"the handler did not end within {CANCEL_S:g} s of its cancellation")
            )
