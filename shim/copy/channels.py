"""containerd's streaming service: streams that a client opens under an id, until a transfer takes one up.

A transfer's stream consists of Data in one direction and WindowUpdate in the other, as containerd's own
client and server have it (core/transfer/streaming): who sends waits for a window, who receives gives one.
So nobody can make us keep more than a window of his.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Coroutine
from typing import Final, TypeVar

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message

from api import streaming_pb2, transfer_types_pb2
from api.streaming_ttrpc import StreamingBase
from shim.errors import AlreadyExistsError, NotFoundError, ResourceError, SpecError
from shim.typed import typed
from ttrpc import Context, StatusError

_Result = TypeVar("_Result")
_Type = TypeVar("_Type", bound=Message)
# Of one shim, taken up or not.
MOST: Final = 16
_PIECE: Final = 32 << 10
_WINDOW: Final = 2 * _PIECE
# Messages that have come and were not looked at: a window in pieces, and windows.
_QUEUE: Final = 64


class Channel:
    """One stream, between its handler below and the transfer that has taken it up."""

    def __init__(self) -> None:
        self.taken = False
        self._incoming: asyncio.Queue[AnyMessage] = asyncio.Queue(_QUEUE)
        # None ends the stream.
        self._outgoing: asyncio.Queue[AnyMessage | None] = asyncio.Queue(1)
        self._ended = asyncio.Event()
        self._gone = asyncio.Event()
        self._window = 0

    async def carry(self, requests: AsyncIterator[AnyMessage]) -> None:
        """The handler's: hand over what comes."""
        try:
            async for message in requests:
                await self._incoming.put(message)
        finally:
            self._ended.set()

    async def next_outgoing(self) -> AnyMessage | None:
        """The handler's: what is to be sent next, or that it is over."""
        return await _before(self._gone, self._outgoing.get())

    def lose(self) -> None:
        """It is over at once, for both."""
        self._gone.set()
        self._ended.set()

    async def receive(self) -> bytes:
        """The client's next data; empty at their end. Raises ConnectionError, SpecError."""
        while True:
            if self._window < _WINDOW:
                await self._send(transfer_types_pb2.WindowUpdate(update=_WINDOW))
                self._window += _WINDOW
            message = await self._next()
            if message is None:
                return b""
            data = as_type(transfer_types_pb2.Data(), message).data
            self._window -= len(data)
            if data:
                return data

    async def send(self, data: bytes) -> None:
        """Send all of `data`, as the client makes room for it. Raises ConnectionError, SpecError."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            while self._window < len(piece):
                message = await self._next()
                if message is None:
                    raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
                self._window += as_type(transfer_types_pb2.WindowUpdate(), message).update
            await self._send(transfer_types_pb2.Data(data=piece))
            self._window -= len(piece)

    async def finish(self) -> None:
        """There is no more for the client."""
        await _before(self._gone, self._outgoing.put(None))

    async def _send(self, message: Message) -> None:
        await _before(self._gone, self._outgoing.put(typed(message)))
        if self._gone.is_set():
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    async def _next(self) -> AnyMessage | None:
        if self._incoming.empty():
            return await _before(self._ended, self._incoming.get())
        return self._incoming.get_nowait()


async def _before(event: asyncio.Event, what: Coroutine[object, object, _Result]) -> _Result | None:
    """What comes of it, if it does before the event."""
    task, over = asyncio.ensure_future(what), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, over), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, over):
            each.cancel()
        await asyncio.gather(task, over, return_exceptions=True)


class StreamingService(StreamingBase):
    """Keeps channels by their ids, as long as their clients are there."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    def take(self, stream: str) -> Channel:
        """The channel of that id, for one transfer. Raises NotFoundError."""
        channel = self._channels.get(stream)
        if channel is None or channel.taken:
            raise NotFoundError(f"stream {stream!r}: none is open under that id, or it is in use")
        channel.taken = True
        return channel

    async def Stream(self, requests: AsyncIterator[AnyMessage], context: Context) -> AsyncIterator[AnyMessage]:
        name, channel = self._open(await anext(requests, None))
        carrying = asyncio.create_task(channel.carry(requests), name="carry a stream's messages")
        try:
            yield typed(Empty())
            while (message := await channel.next_outgoing()) is not None:
                yield message
        finally:
            channel.lose()
            del self._channels[name]
            carrying.cancel()
            await asyncio.gather(carrying, return_exceptions=True)

    def _open(self, first: AnyMessage | None) -> tuple[str, Channel]:
        try:
            if first is None:
                raise SpecError("a stream begins with a StreamInit")
            name = as_type(streaming_pb2.StreamInit(), first).id
            if name in self._channels:
                raise AlreadyExistsError(f"stream {name!r} is open already")
            if len(self._channels) >= MOST:
                raise ResourceError(f"{MOST} streams are open")
        except (SpecError, AlreadyExistsError, ResourceError) as error:
            raise StatusError(error.code, str(error)) from error
        channel = self._channels[name] = Channel()
        return name, channel


def as_type(empty: _Type, message: AnyMessage) -> _Type:
    """`message` as what `empty` is. Raises SpecError."""
    if not is_type(empty, message):
        raise SpecError(f"{message.type_url!r} is not {empty.DESCRIPTOR.full_name}")
    try:
        empty.ParseFromString(message.value)
    except DecodeError as error:
        raise SpecError(f"a {empty.DESCRIPTOR.full_name} that is none: {error}") from error
    return empty


def is_type(empty: Message, message: AnyMessage) -> bool:
    """Whether `message` says that it is one, with whatever stands before the name."""
    return message.type_url.rpartition("/")[2] == empty.DESCRIPTOR.full_name
