"""vminitd's archive service, made up, and the sandbox that leads to it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from api import archive_pb2, guest_pb2
from api.frames import header
from archive.records import END as STREAM_END
from archive.records import Entry, Kind, encode
from shim.errors import GuestError
from shim.relay import Streams
from ttrpc import Code, StatusError

_Reply = TypeVar("_Reply")
Behaviour = Callable[[socket.socket], Awaitable[archive_pb2.FinishResponse]]


class FakeGuest:
    """vminitd's archive service, and the sandbox that leads to it; `behave` is what its end of the stream does."""

    def __init__(self) -> None:
        self.archive = self
        self.behave: Behaviour | None = None
        self.look = archive_pb2.LookResponse(mode=0o100644)
        self.copied_into = 0
        self.ends: list[socket.socket] = []
        self._task: asyncio.Task[archive_pb2.FinishResponse] | None = None

    async def call(self, reply: Awaitable[_Reply], *, deadline_s: float | None) -> _Reply:
        async with asyncio.timeout(deadline_s):
            try:
                return await reply
            except StatusError as error:
                raise GuestError(error.code, error.message) from error

    async def Look(self, request: archive_pb2.LookRequest) -> archive_pb2.LookResponse:
        if request.path.startswith(b"/nothing"):
            raise StatusError(Code.NOT_FOUND, f"{request.path.decode()}: No such file or directory")
        if request.path == b"/":
            return archive_pb2.LookResponse(mode=0o40755)
        return self.look

    async def Read(self, request: archive_pb2.ReadRequest) -> archive_pb2.CopyResponse:
        return archive_pb2.CopyResponse(copy=7)

    async def Write(self, request: archive_pb2.WriteRequest) -> archive_pb2.CopyResponse:
        return archive_pb2.CopyResponse(copy=7)

    async def Finish(self, request: archive_pb2.FinishRequest) -> archive_pb2.FinishResponse:
        assert request.copy == 7
        assert self._task is not None
        return await self._task

    @contextlib.asynccontextmanager
    async def streams(self, streams: Streams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        yield
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.ends.append(theirs)
        (name,) = streams.names
        streams.connect(name, ours)
        assert self.behave is not None
        self._task = asyncio.create_task(self._behaving(self.behave, theirs))

    async def _behaving(self, behave: Behaviour, end: socket.socket) -> archive_pb2.FinishResponse:
        """A child that goes on by itself, and whose end is remembered."""
        try:
            return await behave(end)
        except ConnectionError:
            raise StatusError(Code.CANCELLED, "nobody waits") from None


class FakeContainer:
    def __init__(self, guest: FakeGuest) -> None:
        self.sandbox = self
        self.guest = guest
        self.streams = guest.streams
        self.copied = 0

    async def copied_into(self) -> None:
        self.copied += 1


def stream(content: bytes = b"content") -> bytes:
    entry = encode(Entry(b"", Kind.FILE, 0o640, size=len(content)))
    return entry + b"D" + len(content).to_bytes(4, "big") + content + STREAM_END


async def send(end: socket.socket, *data: bytes) -> None:
    for each in data:
        await asyncio.get_running_loop().sock_sendall(end, each)


def framed(data: bytes) -> bytes:
    return header(len(data)) + data


def sending(*data: bytes, notes: tuple[str, ...] = ()) -> Behaviour:
    """A guest that sends this, waits until it is taken, and is done."""

    async def behave(end: socket.socket) -> archive_pb2.FinishResponse:
        await send(end, *data)
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_recv(end, 1)
        return archive_pb2.FinishResponse(notes=notes)

    return behave
