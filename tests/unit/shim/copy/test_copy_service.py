"""The shim's side of a copy, between a real command's pipe and a guest that keeps its word, or does not."""

import asyncio
import contextlib
import io
import os
import socket
from typing import cast

import pytest
import structlog

from api import archive_pb2, files_pb2
from api.files_ttrpc import FilesStub
from api.frames import BROKEN, END, FrameReader
from archive.pack import pack
from archive.records import END as STREAM_END
from archive.records import Entry, Kind, encode, read
from shim import deadlines
from shim.copy.carry import MOST, Copier, Pipe
from shim.errors import GuestError, HostError, NotFoundError, ResourceError
from shim.log import Logger
from tests.unit.shim.copy.conftest import Site
from tests.unit.shim.copy.copy_guest import framed, send, sending, stream
from ttrpc import Code, StatusError


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
        frames = FrameReader()
        while not frames.ended:
            data = await asyncio.get_running_loop().sock_recv(end, 1 << 16)
            for piece in frames.feed(memoryview(data)):
                got.extend(piece)
        end.close()
        return archive_pb2.FinishResponse()

    site.guest.behave = take
    assert await site.cp(f"{site.directory}/f", "c:/") == 0
    place = os.open(site.directory / "f", os.O_PATH)
    expected = io.BytesIO()
    pack(place, expected.write, print)
    os.close(place)
    assert bytes(got) == expected.getvalue()
    assert site.container.copied == 1


async def test_a_guest_that_has_all_before_the_pipe_has_ended(site: Site) -> None:
    """It goes after the last record, and says that it has everything: the end of the pipe may come later."""

    async def take(end: socket.socket) -> archive_pb2.FinishResponse:
        frames, got = FrameReader(), bytearray()
        while not got.endswith(STREAM_END):
            data = await asyncio.get_running_loop().sock_recv(end, 1 << 16)
            for piece in frames.feed(memoryview(data)):
                got.extend(piece)
        end.close()
        return archive_pb2.FinishResponse()

    site.guest.behave = take
    ours, theirs = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.write(theirs, stream())
        copier = Copier(site.containers, cast("Logger", structlog.get_logger()))
        async with asyncio.timeout(30), copier.writing("c", b"/", b"f", Pipe(ours)) as finish:
            assert await finish() == []
    finally:
        os.close(theirs)
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


async def test_only_a_pipe_will_do(site: Site) -> None:
    client = await site.connect()
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
    client = await site.connect()
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
