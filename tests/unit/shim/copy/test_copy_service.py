"""The shim's side of a copy, between a real command's pipe and a guest that keeps its word, or does not."""

import asyncio
import contextlib
import io
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest
import structlog

from api import archive_pb2, files_pb2, guest_pb2
from api.files_ttrpc import FilesStub
from api.frames import BROKEN, END, header
from archive.pack import pack
from archive.records import END as STREAM_END
from archive.records import Entry, Kind, encode, read
from shim import deadlines
from shim.copy import address, command
from shim.copy.carry import MOST, Copier
from shim.copy.service import FilesService
from shim.errors import GuestError, HostError, NotFoundError, ResourceError
from shim.log import Logger
from shim.relay import Streams
from shim.task.container import Container
from ttrpc import Client, Code, Server, StatusError

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
        if request.path == b"/nothing":
            raise StatusError(Code.NOT_FOUND, "/nothing: no such file")
        if request.path == b"/":
            return archive_pb2.LookResponse(mode=0o40755)
        return self.look

    async def Read(self, request: archive_pb2.ReadRequest) -> archive_pb2.CopyResponse:
        return archive_pb2.CopyResponse(copy=7)

    async def Write(self, request: archive_pb2.WriteRequest) -> archive_pb2.CopyResponse:
        return archive_pb2.CopyResponse(copy=7)

    async def Finish(self, request: archive_pb2.FinishRequest) -> archive_pb2.FinishResponse:
        assert request.copy == 7
        assert self.behave is not None
        return await self.behave(self.ends[-1])

    @contextlib.asynccontextmanager
    async def streams(self, streams: Streams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        yield
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        self.ends.append(theirs)
        (name,) = streams.names
        streams.connect(name, ours)


class FakeContainer:
    def __init__(self, guest: FakeGuest) -> None:
        self.sandbox = self
        self.guest = guest
        self.streams = guest.streams
        self.copied = 0

    async def copied_into(self) -> None:
        self.copied += 1


class Site:
    """A shim that serves one container, `c`, and what the command is told of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.guest = FakeGuest()
        self.container = FakeContainer(self.guest)
        log = cast("Logger", structlog.get_logger())
        self.containers = {"c": cast("Container", self.container)}
        self.server = Server([FilesService(Copier(self.containers, log))])
        self.socket = str(directory / "s")
        (directory / "vm/k").mkdir(parents=True)
        address.write(directory / "vm/k", address.Address("default", "c", str(directory), self.socket))
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.socket)
        self.listener.listen()
        self.listener.setblocking(False)

    async def cp(self, source: str, destination: str) -> int:
        """The command, in a thread with a loop of its own, as it has a process of its own."""

        def run() -> int:
            return command.run(self.directory, source, destination, namespace="", follow=False, archive=False)

        async with asyncio.timeout(30):
            return await asyncio.to_thread(run)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    serving = asyncio.create_task(made.server.serve_listener(made.listener))
    yield made
    await made.server.close(0)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    for end in made.guest.ends:
        end.close()


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


async def test_out_of_the_container(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.guest.behave = sending(framed(stream()), END, notes=("a note\x1b[31m", "x" * 1000))
    assert await site.cp("c:/f", f"{site.directory}/g") == 0
    assert (site.directory / "g").read_text() == "content"
    said = capfd.readouterr().err.splitlines()
    assert said[0] == "qemubox: a note [31m"
    assert len(said[1]) < 500


async def test_into_the_container(site: Site) -> None:
    (site.directory / "f").write_text("content")
    got = bytearray()

    async def take(end: socket.socket) -> archive_pb2.FinishResponse:
        while not got.endswith(END):
            got.extend(await asyncio.get_running_loop().sock_recv(end, 1 << 16))
        end.close()
        return archive_pb2.FinishResponse()

    site.guest.behave = take
    assert await site.cp(f"{site.directory}/f", "c:/") == 0
    place = os.open(site.directory / "f", os.O_PATH)
    expected = io.BytesIO()
    pack(place, expected.write, print)
    os.close(place)
    assert framed(expected.getvalue()) + END == bytes(got)
    assert site.container.copied == 1


@pytest.mark.parametrize(
    "said",
    [(framed(stream()[:-5]), END), (framed(stream()), BROKEN), (framed(stream()[:-5]), BROKEN), (b"\0\0\1\0abc",)],
)
async def test_a_stream_that_is_not_whole_is_an_error(
    site: Site, said: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the guest says at its end."""
    monkeypatch.setattr(deadlines, "DRAIN_S", 0.3)

    async def lie(end: socket.socket) -> archive_pb2.FinishResponse:
        await send(end, *said)
        return archive_pb2.FinishResponse()

    site.guest.behave = lie
    with pytest.raises((HostError, GuestError), match="cut short"):
        await site.cp("c:/f", f"{site.directory}/g")
    assert not (site.directory / "g").exists() or said[0] == framed(stream())


async def test_the_guests_own_error_is_what_is_said(site: Site) -> None:
    async def fail(end: socket.socket) -> archive_pb2.FinishResponse:
        await send(end, framed(stream()[:-5]))
        raise StatusError(Code.FAILED_PRECONDITION, "/f: Input/output error")

    site.guest.behave = fail
    with pytest.raises(GuestError, match="Input/output error"):
        await site.cp("c:/f", f"{site.directory}/g")
    assert not (site.directory / "g").exists()


async def test_what_the_command_refuses_ends_the_copy(site: Site) -> None:
    """The guest is hung up upon, and nothing is left of it in the shim."""
    (site.directory / "d").mkdir()
    hung_up = asyncio.Event()

    async def flood(end: socket.socket) -> archive_pb2.FinishResponse:
        data = framed(encode(Entry(b"", Kind.DIRECTORY)) + encode(Entry(b"../x", Kind.FIFO)) + bytes(100_000))
        try:
            while True:
                await send(end, data)
        finally:  # the call is given up, or the stream
            hung_up.set()

    site.guest.behave = flood
    site.guest.look = archive_pb2.LookResponse(mode=0o40755)
    with pytest.raises(HostError, match="is no name"):
        await site.cp("c:/f", f"{site.directory}/d")
    await asyncio.wait_for(hung_up.wait(), 10)
    assert not (site.directory / "x").exists()


async def test_unknown_containers_and_paths(site: Site) -> None:
    with pytest.raises(NotFoundError, match="no such file or directory"):
        await site.cp("c:/nothing", f"{site.directory}/g")
    site.containers.clear()
    with pytest.raises(NotFoundError, match=r"no such file or directory|no task"):
        await site.cp("c:/f", f"{site.directory}/g")
    os.unlink(site.socket)
    with pytest.raises(NotFoundError, match="not there any more"):
        await site.cp("c:/f", f"{site.directory}/g")


async def _client(site: Site) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, site.socket)
    return Client(sock)


async def test_only_a_pipe_will_do(site: Site) -> None:
    client = await _client(site)
    files = FilesStub(client)
    for descriptor in (site.listener.fileno(), 9999):
        with pytest.raises(StatusError) as caught:
            async with files.Read(files_pb2.ReadRequest(container_id="c", descriptor=descriptor)) as answer:
                await answer.receive()
        assert caught.value.code is Code.INVALID_ARGUMENT
    await client.close()


async def test_there_is_a_bound_of_copies(site: Site) -> None:
    async def hang(end: socket.socket) -> archive_pb2.FinishResponse:
        await asyncio.Event().wait()
        raise AssertionError

    site.guest.behave = hang
    client = await _client(site)
    files = FilesStub(client)
    reading, writing = os.pipe()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(MOST + 1):
            request = files_pb2.ReadRequest(container_id="c", descriptor=writing)
            answer = await stack.enter_async_context(files.Read(request))
            if number < MOST:
                assert await answer.receive() is not None
        with pytest.raises(StatusError) as caught:
            await answer.receive()
        assert caught.value.code is ResourceError.code
    await client.close()
    os.close(writing)
    # All that the shim had of the pipe is closed once the calls are cancelled.
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 10) == b""
    os.close(reading)


def test_the_stream_of_these_tests_is_one() -> None:
    assert len([*read(io.BytesIO(stream()).read)]) == 2
