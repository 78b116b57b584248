"""The client against a server that is wrong: a guest is not to be trusted with the shim's health."""

import asyncio
import socket

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from tests.unit.ttrpc.raw_server import END, RawServer, Soon, call, status_of, streaming, text
from ttrpc import Client, Code, ConnectionClosed, Stream
from ttrpc.frame import MAX_DATA, FrameType
from ttrpc.messages import encode_reply


async def test_frames_of_streams_that_never_were(raw_server: RawServer) -> None:
    client, peer = raw_server()
    for stream_id in (0, 2, 999, 0xFFFF_FFFF):
        for frame_type in FrameType:
            await peer.send(stream_id, frame_type, 0, b"\xff\xff")
    await peer.write(bytes.fromhex("00000001 00000007 09 00 61"))
    await peer.works(client)


async def test_two_responses(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number = await peer.next_id()
    for value in "first", "second":
        await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text(value)))
    assert (await task).value == "first"
    await peer.works(client)


@pytest.mark.parametrize(
    ("frame_type", "data"),
    [
        (FrameType.DATA, b""),
        (FrameType.REQUEST, b""),
        (FrameType.RESPONSE, b"\xff\xff"),
        (FrameType.RESPONSE, encode_reply(b"\xff")),
    ],
)
async def test_answers_that_are_none(raw_server: RawServer, frame_type: FrameType, data: bytes) -> None:
    client, peer = raw_server()
    task = call(client)
    await peer.send(await peer.next_id(), frame_type, 0, data)
    assert (await status_of(task)).code is Code.INTERNAL
    await peer.works(client)


@pytest.mark.parametrize(
    ("frame_type", "data"),
    [(FrameType.REQUEST, b""), (FrameType.RESPONSE, b"\xff"), (FrameType.DATA, b"\xff")],
)
async def test_stream_answers_that_are_none(raw_server: RawServer, frame_type: FrameType, data: bytes) -> None:
    client, peer = raw_server()
    async with streaming(client) as stream:
        await peer.send(await peer.next_id(), frame_type, 0, data)
        assert (await status_of(stream.receive())).code is Code.INTERNAL
    await peer.works(client)


async def test_data_where_one_reply_is_due(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[StringValue, Empty] = client.stream("/a.B/S", Empty, request=None, streams_out=False)
    await stream.send(StringValue())
    await peer.send(await peer.next_id(), FrameType.DATA, 0, b"")
    assert (await status_of(stream.reply())).code is Code.INTERNAL
    await peer.works(client)


async def test_end_where_one_reply_is_due(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[Empty, StringValue] = client.stream("/a.B/S", StringValue, request=None, streams_out=True)
    await stream.send(Empty())
    await peer.send(await peer.next_id(), FrameType.DATA, END, b"")
    assert (await status_of(stream.reply())).code is Code.INTERNAL


async def test_oversized_response(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number, length = await peer.next_id(), MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + number.to_bytes(4, "big") + b"\x02\x00" + bytes(length))
    error = await status_of(task)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(length) in error.message
    await peer.works(client)


async def test_oversized_message_of_a_stream(raw_server: RawServer) -> None:
    """The stream cannot go on without it: it is given up, and the server told."""
    client, peer = raw_server()
    stream = streaming(client)
    receiver = asyncio.create_task(stream.receive())
    number, length = await peer.next_id(), MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + number.to_bytes(4, "big") + b"\x03\x00" + bytes(length))
    assert (await status_of(receiver)).code is Code.RESOURCE_EXHAUSTED
    frame = await peer.receive()
    assert frame is not None
    assert (frame.stream_id, frame.type) == (number, FrameType.RESPONSE)
    await peer.send(number, FrameType.DATA, 0, text("the next one"))
    await peer.works(client)
    assert client._receivers == {}


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x05\x00", b"\x00\x00\x00\x05\x00\x00\x00\x01\x02\x00ab"])
async def test_server_gone(raw_server: RawServer, soon: Soon, data: bytes) -> None:
    """Between two frames, in a header, in the data: it is all the same."""
    client, peer = raw_server()
    stream = streaming(client)
    tasks = [call(client), asyncio.create_task(stream.receive())]
    await peer.next_id()
    await peer.next_id()
    await peer.write(data)
    peer.sock.close()
    for task in tasks:
        with pytest.raises(ConnectionClosed):
            await soon(task)
    await soon(client.closed)
    with pytest.raises(ConnectionClosed):
        await call(client)


async def test_garbage_ends_the_connection(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()
    task = call(client)
    await peer.next_id()
    await peer.write(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(ConnectionClosed, match="does not speak ttrpc"):
        await soon(task)
    await soon(client.closed)
    assert await peer.receive() is None


async def test_socket_that_is_not_connected(soon: Soon) -> None:
    client = Client(socket.socket(socket.AF_UNIX))
    with pytest.raises(ConnectionClosed):
        await soon(call(client))
    await soon(client.closed)


async def test_socket_that_is_closed(soon: Soon) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.close()
    client = Client(sock)
    with pytest.raises(ConnectionClosed, match="cannot be used"):
        await soon(call(client))
    await soon(client.close())


async def test_server_that_does_not_read(raw_server: RawServer, soon: Soon) -> None:
    """What a client keeps for such a server is bounded; the callers wait, and can give up."""
    client, _peer = raw_server()
    big = StringValue(value="x" * (1 << 20))
    calls = [asyncio.create_task(client.call("/a.B/C", big, Empty, timeout_s=0.2)) for _ in range(20)]
    for task in calls:
        assert (await status_of(soon(task))).code is Code.DEADLINE_EXCEEDED
    assert client._wire is not None
    assert client._wire._writer.transport.get_write_buffer_size() < (2 << 20)
    assert client._receivers == {}
