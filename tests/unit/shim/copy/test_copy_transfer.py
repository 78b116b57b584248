"""containerd's transfer service, asked as containerd's own client asks (core/transfer/streaming)."""

import asyncio
import io
import os
import socket
import tarfile
from pathlib import Path

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from api import archive_pb2, streaming_pb2
from api import transfer_types_pb2 as types
from api.frames import END, FrameReader
from api.streaming_ttrpc import StreamingStub
from archive.pack import pack
from archive.records import END as STREAM_END
from archive.records import Entry, Kind, encode, read
from harness.transfer import TAR, opened, received, sent, transfer
from shim.copy import channels
from shim.typed import typed
from tests.unit.shim.copy.conftest import Site
from tests.unit.shim.copy.copy_guest import framed, send, sending, stream
from ttrpc import Client, Code, StatusError


async def refusal(client: Client, source: Message, destination: Message) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        await transfer(client, source, destination)
    return caught.value.code, caught.value.message


def path(text: str, **more: bool) -> types.ContainerPath:
    return types.ContainerPath(container_id="c", path=text, **more)


def out(name: str = "s") -> types.WriteStream:
    return types.WriteStream(stream=name, media_type=TAR)


def into(name: str = "s") -> types.ReadStream:
    return types.ReadStream(stream=name, media_type=TAR)


async def test_out_of_the_container(site: Site) -> None:
    content = os.urandom(300_000)
    site.guest.behave = sending(*(framed(piece) for piece in pieces(stream(content))), END)
    client = await site.connect()
    async with opened(client, "s") as channel:
        receiving = asyncio.create_task(received(channel))
        await transfer(client, path("/d/../f"), out())
        archive = await asyncio.wait_for(receiving, 10)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode) == ("f", 0o640)
        file = tar.extractfile(member)
        assert file is not None
        assert file.read() == content
    await client.close()


def pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 20_000] for at in range(0, len(data), 20_000)]


async def test_a_directory_alone(site: Site) -> None:
    site.guest.look = archive_pb2.LookResponse(mode=0o40755)
    whole = encode(Entry(b"", Kind.DIRECTORY)) + encode(Entry(b"f", Kind.FILE)) + STREAM_END
    client = await site.connect()
    for alone, names in ((True, ["d"]), (False, ["d", "d/f"])):
        site.guest.behave = sending(framed(whole), END)
        async with opened(client, "s") as channel:
            receiving = asyncio.create_task(received(channel))
            await transfer(client, path("/d", no_walk=alone), out())
            archive = await asyncio.wait_for(receiving, 10)
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert tar.getnames() == names
    await client.close()


def archive_of(content: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        info = tarfile.TarInfo("f")
        info.size, info.uid = len(content), 5
        tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize("keep", [False, True])
async def test_into_the_container(site: Site, keep: bool) -> None:
    """With the directory made that is not there."""
    content = os.urandom(300_000)
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
    client = await site.connect()
    async with opened(client, "s") as channel:
        sending_ = asyncio.create_task(sent(channel, archive_of(content)))
        await transfer(client, into(), path("/nothing/new", preserve_ownership=keep))
        await asyncio.wait_for(sending_, 10)
    records = [bytes(each) if isinstance(each, memoryview) else each for each in read(io.BytesIO(got).read)]
    entries = [each for each in records if isinstance(each, Entry)]
    assert [(each.path, each.uid) for each in entries] == [(b"", 0), (b"nothing/new", 0), (b"nothing/new/f", 5 * keep)]
    assert b"".join(each for each in records if isinstance(each, bytes)) == content
    assert site.container.copied == 1
    await client.close()


async def test_what_is_not_there(site: Site) -> None:
    client = await site.connect()
    async with opened(client, "s"):
        assert (await refusal(client, path("/nothing"), out()))[0] is Code.NOT_FOUND
    other = types.ContainerPath(container_id="other", path="/")
    for source, destination, code in (
        (path("/f"), out("t"), Code.NOT_FOUND),
        (path("/f"), types.WriteStream(stream="s", media_type="text/plain"), Code.UNIMPLEMENTED),
        (path("/f"), path("/g"), Code.UNIMPLEMENTED),
        (into(), out(), Code.UNIMPLEMENTED),
    ):
        assert (await refusal(client, source, destination))[0] is code
    async with opened(client, "s"):
        assert (await refusal(client, other, out()))[0] is Code.NOT_FOUND
    await client.close()


async def test_an_error_of_the_guests_is_the_transfers(site: Site) -> None:
    async def fail(end: socket.socket) -> archive_pb2.FinishResponse:
        await send(end, framed(stream()[:-5]))
        raise StatusError(Code.FAILED_PRECONDITION, "/f: Input/output error")

    site.guest.behave = fail
    client = await site.connect()
    async with opened(client, "s") as channel:
        receiving = asyncio.create_task(received(channel))
        assert "Input/output error" in (await refusal(client, path("/f"), out()))[1]
        await asyncio.wait_for(asyncio.gather(receiving, return_exceptions=True), 10)
    await client.close()


@pytest.mark.parametrize("archive", [b"x" * 1000, archive_of(b"x" * 2000)[:1000]])
async def test_what_is_no_archive(site: Site, archive: bytes) -> None:
    async def refuse(end: socket.socket) -> archive_pb2.FinishResponse:
        while await asyncio.get_running_loop().sock_recv(end, 1 << 16) not in (b"", END):
            pass
        raise StatusError(Code.ABORTED, "the copy was cut short")

    site.guest.behave = refuse
    client = await site.connect()
    async with opened(client, "s") as channel:
        sending_ = asyncio.create_task(sent(channel, archive))
        assert (await refusal(client, into(), path("/")))[0] in (Code.INTERNAL, Code.ABORTED)
        sending_.cancel()
        await asyncio.gather(sending_, return_exceptions=True)
    await client.close()


async def test_a_client_that_goes_away_leaves_nothing(site: Site) -> None:
    """In the middle of either direction: the guest is hung up upon, and its threads end."""
    for source, destination in ((path("/f"), out()), (into(), path("/"))):
        hung_up = asyncio.Event()

        async def hang(end: socket.socket, hung_up: asyncio.Event = hung_up) -> archive_pb2.FinishResponse:
            try:
                while True:
                    await send(end, framed(bytes(1000)))
                    await asyncio.sleep(0.01)
            finally:
                hung_up.set()

        site.guest.behave = hang
        client = await site.connect()
        async with opened(client, "s"):
            asking = asyncio.create_task(transfer(client, source, destination))
            await asyncio.sleep(0.2)
            await client.close()
            await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(hung_up.wait(), 10)


async def test_streams_are_bounded_and_one_each(site: Site) -> None:
    client = await site.connect()
    streams = StreamingStub(client)

    async def refused(first: AnyMessage) -> Code:
        async with streams.Stream() as channel:
            await channel.send(first)
            with pytest.raises(StatusError) as caught:
                await channel.receive()
            return caught.value.code

    async with opened(client, "s"):
        assert await refused(typed(streaming_pb2.StreamInit(id="s"))) is Code.ALREADY_EXISTS
        assert await refused(typed(types.Data())) is Code.INVALID_ARGUMENT
        assert await refused(AnyMessage(type_url=typed(streaming_pb2.StreamInit()).type_url, value=b"\xff")) is (
            Code.INVALID_ARGUMENT
        )
    made = [opened(client, str(number)) for number in range(channels.MOST)]
    for each in made:
        await each.__aenter__()
    assert await refused(typed(streaming_pb2.StreamInit(id="more"))) is Code.RESOURCE_EXHAUSTED
    for each in made:
        await each.__aexit__(None, None, None)
    await client.close()


def test_the_streams_of_these_tests_are_what_is_packed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    (tmp_path / "f").chmod(0o640)
    os.utime(tmp_path / "f", (0, 0))
    place = os.open(tmp_path / "f", os.O_PATH)
    packed = io.BytesIO()
    pack(place, packed.write, print)
    os.close(place)
    assert packed.getvalue() == stream()
