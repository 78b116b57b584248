"""A streaming call, as the client sees it.

    async with stub.Watch(request) as stream:      # one request, many replies
        async for reply in stream: ...

    async with stub.Upload() as stream:            # many requests, one reply
        await stream.send(request)
        reply = await stream.reply()

    async with stub.Talk() as stream:              # both
        await stream.send(request)
        reply = await stream.receive()             # None at the end
        await stream.close_send()

The call begins with the first thing asked of the stream, or with `async with`. Leaving the block before the
server's end cancels the call. Replies that come faster than they are taken are kept within the bounds of
`ttrpc.inbox`; a taker that is slower than that loses the stream with RESOURCE_EXHAUSTED.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Generic, TypeVar

from google.protobuf.message import Message

from ttrpc.client import Client
from ttrpc.frame import NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType
from ttrpc.inbox import Inbox
from ttrpc.messages import Metadata, decode_reply, decode_response, encode_request, late
from ttrpc.status import Code, StatusError

Req = TypeVar("Req", bound=Message)
Resp = TypeVar("Resp", bound=Message)
T = TypeVar("T")


class Stream(Generic[Req, Resp]):
    """One streaming call. Made by a stub; one task may send while another one receives."""

    def __init__(
        self,
        client: Client,
        path: str,
        reply_type: type[Resp],
        *,
        request: Req | None,
        streams_out: bool,
        timeout_s: float | None,
        metadata: Metadata | None,
    ) -> None:
        self._client = client
        self._path = path
        self._reply_type = reply_type
        self._streams_in = request is None
        self._streams_out = streams_out
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        payload = b"" if request is None else request.SerializeToString()
        self._request = encode_request(path, payload, timeout_s, metadata)
        self._id: int | None = None
        self._opening = asyncio.Lock()
        self._inbox = Inbox()
        self._sending = self._streams_in
        """The end of our data was not sent yet."""

    async def __aenter__(self) -> "Stream[Req, Resp]":
        await self._within(self._open())
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def __aiter__(self) -> "Stream[Req, Resp]":
        return self

    async def __anext__(self) -> Resp:
        reply = await self.receive()
        if reply is None:
            raise StopAsyncIteration
        return reply

    async def receive(self) -> Resp | None:
        """The server's next message, or None at its end.

        Raises the StatusError with which the server ended the call; DEADLINE_EXCEEDED after the call's timeout;
        CANCELLED after `cancel`; RESOURCE_EXHAUSTED when messages were taken too slowly; ConnectionClosed.
        """
        data = await self._within(self._take())
        return None if data is None else decode_reply(self._reply_type, data)

    async def send(self, message: Req) -> None:
        """Sends one message; waits while the connection is full.

        Raises like `receive`, FAILED_PRECONDITION if the server has ended the call already, and RuntimeError if
        this method takes one request or `close_send` was called.
        """
        if not self._sending:
            raise RuntimeError(f"{self._path}: nothing (more) can be sent on this stream")
        await self._within(self._send(0, message.SerializeToString()))

    async def close_send(self) -> None:
        """Tells the server that no more messages come. Nothing if it knows, or has ended the call."""
        if self._sending and not self._inbox.ended:
            self._sending = False
            await self._within(self._send(REMOTE_CLOSED | NO_DATA, b""))

    async def reply(self) -> Resp:
        """Ends our messages and waits for the one reply of a method that streams only requests."""
        await self.close_send()
        reply = await self.receive()
        if reply is None:
            raise StatusError(Code.INTERNAL, f"{self._path} ended without a reply")
        return reply

    def cancel(self) -> None:
        """Gives the call up, if it is not at its end: replies not yet taken are dropped, the server is told."""
        self._give_up(StatusError(Code.CANCELLED, f"{self._path} was cancelled"))

    async def on_frame(self, frame: Frame) -> None:
        """For the client's reading task."""
        if frame.type == FrameType.DATA and self._streams_out:
            await self._on_data(frame)
        elif frame.type == FrameType.RESPONSE:
            await self._on_response(frame)
        else:
            self._give_up(StatusError(Code.INTERNAL, f"{self._path} was answered by a frame of type {frame.type}"))

    def on_end(self, error: StatusError) -> None:
        """For the client's reading task."""
        self._inbox.end(error)

    async def _on_data(self, frame: Frame) -> None:
        if not frame.flags & NO_DATA:
            await self._put(frame.data)
        if frame.flags & REMOTE_CLOSED:
            self._finish(None)

    async def _on_response(self, frame: Frame) -> None:
        try:
            payload = decode_response(frame.data)
        except StatusError as error:
            self._finish(error)
            return
        # After a stream an empty Response is only its end; elsewhere it is an empty message.
        if payload or not self._streams_out:
            await self._put(payload)
        self._finish(None)

    async def _put(self, data: bytes) -> None:
        if not await self._inbox.put(data):
            self._give_up(StatusError(Code.RESOURCE_EXHAUSTED, f"{self._path}: replies were taken too slowly"))

    def _finish(self, error: StatusError | None) -> None:
        self._inbox.end(error)
        if self._id is not None:
            self._client.forget(self._id)

    def _give_up(self, error: StatusError) -> None:
        if self._inbox.ended:
            return
        self._inbox.drop(error)
        if self._id is not None:
            self._client.cancel(self._id, end_data=self._sending)

    async def _open(self) -> int:
        """Begins the call if it was not; the result is the stream's number."""
        async with self._opening:
            if self._id is None:
                wire = await self._client.ready()
                self._check()
                flags = REMOTE_OPEN if self._streams_in else REMOTE_CLOSED
                self._id = self._client.start(wire, self, flags, self._request)
        return self._id

    async def _take(self) -> bytes | None:
        if not self._inbox.ended:
            await self._open()
        return await self._inbox.take()

    async def _send(self, flags: int, data: bytes) -> None:
        stream_id = await self._open()
        wire = await self._client.ready()
        self._check()
        wire.write(stream_id, FrameType.DATA, flags, data)
        await asyncio.sleep(0)  # a task that has much to say would keep the loop for itself until there is no room

    def _check(self) -> None:
        """Raises if the call is at its end."""
        if self._inbox.ended:
            raise self._inbox.error or StatusError(Code.FAILED_PRECONDITION, f"{self._path}: the server has ended it")

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await work
        except TimeoutError:
            error = late(self._path, self._timeout_s or 0)
            self._give_up(error)
            raise error from None
