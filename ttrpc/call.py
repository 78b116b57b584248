"""One call that is being served: a handler, the task it runs in, and the stream it answers on.

started ── handler returns, raises, or is out of time ──▶ answered
   └────── dropped: the client is gone, or was answered for us ──▶ cancelled, and never answers
"""

import asyncio
from collections.abc import Callable

from ttrpc.context import Context
from ttrpc.frame import NO_DATA, REMOTE_CLOSED, Frame, FrameType
from ttrpc.inbox import Inbox
from ttrpc.messages import encode_reply, encode_status, late
from ttrpc.service import Method
from ttrpc.status import Code, ConnectionClosed, StatusError
from ttrpc.wire import Wire

OnError = Callable[[str, BaseException], None]
"""Told of what no client is told whole: where it happened, and the exception."""


class Call:
    """Is the `ttrpc.service.Exchange` of its handler."""

    def __init__(
        self,
        wire: Wire,
        stream_id: int,
        method: Method,
        *,
        payload: bytes,
        context: Context,
        more: bool,
        on_error: OnError,
    ) -> None:
        """`more`: the client said that Data frames follow."""
        self.payload = payload
        self.context = context
        self._wire = wire
        self._stream_id = stream_id
        self._method = method
        self._on_error = on_error
        self._inbox = Inbox(*([payload] if payload or not more else [])) if method.streams_in else Inbox()
        self._dropped = False
        self._over = False
        """The handler has returned or raised."""
        if not (method.streams_in and more):
            self._inbox.end()
        self.task = asyncio.get_running_loop().create_task(self._run(), name=f"ttrpc {context.method}")

    # What the handler's side needs.

    async def receive(self) -> bytes | None:
        return await self._inbox.take()

    async def send(self, data: bytes) -> None:
        await self._wire.room()
        if self._dropped:
            raise StatusError(Code.CANCELLED, "nobody waits for this call any more")
        self._wire.write(self._stream_id, FrameType.DATA, 0, data)
        await asyncio.sleep(0)  # a handler that has much to say would keep the loop for itself until there is no room

    # What the connection's side needs.

    async def on_data(self, frame: Frame) -> StatusError | None:
        """Takes a Data frame; the result is why the call cannot go on, if it cannot."""
        if self._over:
            return None  # crossed the answer on the way
        if not self._method.streams_in:
            return StatusError(Code.INVALID_ARGUMENT, f"{self.context.method} takes one request, no stream of data")
        if self._inbox.ended:
            return StatusError(Code.INVALID_ARGUMENT, "data came after the client's end of data")
        if not frame.flags & NO_DATA and not await self._inbox.put(frame.data):
            return StatusError(Code.RESOURCE_EXHAUSTED, f"{self.context.method}: requests were taken too slowly")
        if frame.flags & REMOTE_CLOSED:
            self._inbox.end()
        return None

    def drop(self) -> None:
        """Cancels the handler; nothing is answered any more."""
        self._dropped = True
        self._inbox.drop(StatusError(Code.CANCELLED, "the call was cancelled"))
        self.task.cancel()

    async def _run(self) -> None:
        result: bytes | StatusError
        try:
            result = await self._result()
        except StatusError as error:
            result = error
        self._over = True
        self._inbox.drop(StatusError(Code.CANCELLED, "the call is over"))
        if not self._dropped:
            await self._answer(result)

    async def _result(self) -> bytes:
        """What the handler returned. Whatever it raised becomes a StatusError."""
        timeout_s = self.context.deadline_s
        if timeout_s == 0:
            raise late(self.context.method, 0)
        scope = asyncio.timeout(timeout_s)
        try:
            async with scope:
                return await self._method.run(self)
        except StatusError:
            raise
        except asyncio.CancelledError as error:
            raise StatusError(Code.CANCELLED, f"{self.context.method} was cancelled") from error
        except Exception as error:
            if isinstance(error, TimeoutError) and scope.expired():
                raise late(self.context.method, timeout_s or 0) from None
            self._on_error(self.context.method, error)
            raise StatusError(Code.UNKNOWN, f"{type(error).__name__}: {error}") from error

    async def _answer(self, result: bytes | StatusError) -> None:
        try:
            await self._wire.room()
        except ConnectionClosed:
            return  # nobody is left to be told
        try:
            self._write(result)
        except StatusError as error:  # the reply was too long
            self._write(error)

    def _write(self, result: bytes | StatusError) -> None:
        if isinstance(result, StatusError):
            self._wire.write(self._stream_id, FrameType.RESPONSE, 0, encode_status(result))
        elif self._method.streams_out:
            self._wire.write(self._stream_id, FrameType.DATA, REMOTE_CLOSED | NO_DATA, b"")
        else:
            self._wire.write(self._stream_id, FrameType.RESPONSE, 0, encode_reply(result))
