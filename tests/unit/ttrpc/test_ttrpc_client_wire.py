"""The client against a server that speaks frames by hand: a guest is not to be trusted with the shim's health."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Client, Code, ConnectionClosed, StatusError, Stream
from ttrpc.frame import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType
from ttrpc.messages import decode_request, encode_reply, encode_status

END = REMOTE_CLOSED | NO_DATA


class Peer(Protocol):
    """What the fixture's raw server can do."""

    sock: socket.socket

    async def write(self, data: bytes) -> None: ...
    async def send(self, stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> None: ...
    async def receive(self) -> Frame | None: ...


RawServer = Callable[[], tuple[Client, Peer]]
Soon = Callable[[Awaitable[object]], Awaitable[object]]


def text(value: str) -> bytes:
    return StringValue(value=value).SerializeToString()


def call(client: Client, timeout_s: float | None = None) -> "asyncio.Task[StringValue]":
    return asyncio.create_task(client.call("/a.B/C", Empty(), StringValue, timeout_s=timeout_s))


def streaming(client: Client) -> Stream[Empty, StringValue]:
    return client.stream("/a.B/S", StringValue, request=Empty(), streams_out=True)


async def next_id(peer: Peer) -> int:
    """The stream of the next frame, which must be a Request."""
    frame = await peer.receive()
    assert frame is not None
    assert frame.type == FrameType.REQUEST
    return frame.stream_id


async def works(client: Client, peer: Peer) -> None:
    """A good call, to see that the connection still works."""
    task = call(client)
    frame = await peer.receive()
    while frame is not None and frame.type != FrameType.REQUEST:
        frame = await peer.receive()
    assert frame is not None
    await peer.send(frame.stream_id, FrameType.RESPONSE, 0, encode_reply(text("fine")))
    assert (await task).value == "fine"


async def status_of(what: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await what
    return caught.value


async def test_request_frames(raw_server: RawServer) -> None:
    client, peer = raw_server()
    for number, flags in [(1, 0), (3, 0)]:
        task = asyncio.create_task(
            client.call("/a.B/C", StringValue(value="x"), Empty, timeout_s=7, metadata={"k": "v"})
        )
        frame = await peer.receive()
        assert frame is not None
        assert (frame.stream_id, frame.type, frame.flags) == (number, FrameType.REQUEST, flags)
        request = decode_request(frame.data)
        assert (request.service, request.method, request.payload) == ("a.B", "C", text("x"))
        assert request.timeout_nano == 7_000_000_000
        await peer.send(number, FrameType.RESPONSE, 0, b"")
        await task


async def test_stream_frames(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[StringValue, Empty] = client.stream("/a.B/S", Empty, request=None, streams_out=False)
    await stream.send(StringValue(value="x"))
    reply = asyncio.create_task(stream.reply())
    frames = [await peer.receive() for _ in range(3)]
    assert frames[0] is not None
    assert frames[0].flags == REMOTE_OPEN
    assert frames[1:] == [Frame(1, FrameType.DATA, 0, text("x")), Frame(1, FrameType.DATA, END, b"")]
    await peer.send(1, FrameType.RESPONSE, 0, encode_reply(b""))
    assert await reply == Empty()


async def test_one_request_stream_frames(raw_server: RawServer) -> None:
    client, peer = raw_server()
    async with streaming(client) as stream:
        frame = await peer.receive()
        assert frame is not None
        assert frame.flags == REMOTE_CLOSED
        # The last message and the end in one frame.
        await peer.send(1, FrameType.DATA, REMOTE_CLOSED, text("x"))
        assert [reply.value async for reply in stream] == ["x"]


async def test_cancelled_stream_frames(raw_server: RawServer) -> None:
    """Data end first, so that a Go handler that waits for data comes to an end."""
    client, peer = raw_server()
    stream: Stream[StringValue, Empty] = client.stream("/a.B/S", Empty, request=None, streams_out=False)
    await stream.send(StringValue(value="x"))
    stream.cancel()
    frames = [await peer.receive() for _ in range(4)]
    assert frames[2] == Frame(1, FrameType.DATA, END, b"")
    assert frames[3] is not None
    assert frames[3].type == FrameType.RESPONSE
    await works(client, peer)


@pytest.mark.parametrize(("payload", "values"), [(b"", []), (text("last"), ["last"])])
async def test_stream_ended_by_a_response(raw_server: RawServer, payload: bytes, values: list[str]) -> None:
    client, peer = raw_server()
    async with streaming(client) as stream:
        await peer.send(await next_id(peer), FrameType.RESPONSE, 0, encode_reply(payload))
        assert [reply.value async for reply in stream] == values


async def test_numbers_are_odd_and_increase(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()
    calls = [call(client) for _ in range(100)]
    assert [await next_id(peer) for _ in calls] == list(range(1, 201, 2))
    for number in reversed(range(1, 201, 2)):
        await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text(str(number))))
    assert [(await task).value for task in calls] == [str(number) for number in range(1, 201, 2)]


async def test_numbers_run_out(raw_server: RawServer) -> None:
    client, peer = raw_server()
    client._next_id = 0xFFFF_FFFF
    task = call(client)
    assert await next_id(peer) == 0xFFFF_FFFF
    await peer.send(0xFFFF_FFFF, FrameType.RESPONSE, 0, encode_reply(text("last")))
    assert (await task).value == "last"
    assert (await status_of(call(client))).code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_timeout_that_is_over_sends_nothing(raw_server: RawServer, timeout_s: float) -> None:
    client, peer = raw_server()
    await works(client, peer)
    assert (await status_of(call(client, timeout_s))).code is Code.DEADLINE_EXCEEDED
    task = call(client)
    number = await next_id(peer)
    assert number == 3
    await peer.send(number, FrameType.RESPONSE, 0, encode_reply(b""))
    await task


async def test_timeout_of_a_stream_whose_server_is_silent(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[Empty, StringValue] = client.stream(
        "/a.B/S", StringValue, request=Empty(), streams_out=True, timeout_s=0.02
    )
    assert (await status_of(stream.receive())).code is Code.DEADLINE_EXCEEDED
    assert client._receivers == {}
    await next_id(peer)
    await works(client, peer)


async def test_late_response_is_dropped(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client, timeout_s=0.01)
    assert (await status_of(task)).code is Code.DEADLINE_EXCEEDED
    await peer.send(await next_id(peer), FrameType.RESPONSE, 0, encode_reply(text("late")))
    await works(client, peer)


async def test_cancelled_call_tells_the_server(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number = await next_id(peer)
    task.cancel()
    frame = await peer.receive()
    assert frame is not None
    assert (frame.stream_id, frame.type) == (number, FrameType.RESPONSE)
    await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text("late")))
    await works(client, peer)


async def test_frames_of_streams_that_never_were(raw_server: RawServer) -> None:
    client, peer = raw_server()
    for stream_id in (0, 2, 999, 0xFFFF_FFFF):
        for frame_type in FrameType:
            await peer.send(stream_id, frame_type, 0, b"\xff\xff")
    await peer.write(bytes.fromhex("00000001 00000007 09 00 61"))
    await works(client, peer)


async def test_two_responses(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number = await next_id(peer)
    for value in "first", "second":
        await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text(value)))
    assert (await task).value == "first"
    await works(client, peer)


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
    await peer.send(await next_id(peer), frame_type, 0, data)
    assert (await status_of(task)).code is Code.INTERNAL
    await works(client, peer)


@pytest.mark.parametrize(
    ("frame_type", "data"),
    [(FrameType.REQUEST, b""), (FrameType.RESPONSE, b"\xff"), (FrameType.DATA, b"\xff")],
)
async def test_stream_answers_that_are_none(raw_server: RawServer, frame_type: FrameType, data: bytes) -> None:
    client, peer = raw_server()
    async with streaming(client) as stream:
        await peer.send(await next_id(peer), frame_type, 0, data)
        assert (await status_of(stream.receive())).code is Code.INTERNAL
    await works(client, peer)


async def test_data_where_one_reply_is_due(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[StringValue, Empty] = client.stream("/a.B/S", Empty, request=None, streams_out=False)
    await stream.send(StringValue())
    await peer.send(await next_id(peer), FrameType.DATA, 0, b"")
    assert (await status_of(stream.reply())).code is Code.INTERNAL
    await works(client, peer)


async def test_end_where_one_reply_is_due(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[Empty, StringValue] = client.stream("/a.B/S", StringValue, request=None, streams_out=True)
    await stream.send(Empty())
    await peer.send(await next_id(peer), FrameType.DATA, END, b"")
    assert (await status_of(stream.reply())).code is Code.INTERNAL


async def test_oversized_response(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number, length = await next_id(peer), MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + number.to_bytes(4, "big") + b"\x02\x00" + bytes(length))
    error = await status_of(task)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(length) in error.message
    await works(client, peer)


async def test_oversized_message_of_a_stream(raw_server: RawServer) -> None:
    """The stream cannot go on without it: it is given up, and the server told."""
    client, peer = raw_server()
    stream = streaming(client)
    receiver = asyncio.create_task(stream.receive())
    number, length = await next_id(peer), MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + number.to_bytes(4, "big") + b"\x03\x00" + bytes(length))
    assert (await status_of(receiver)).code is Code.RESOURCE_EXHAUSTED
    frame = await peer.receive()
    assert frame is not None
    assert (frame.stream_id, frame.type) == (number, FrameType.RESPONSE)
    await peer.send(number, FrameType.DATA, 0, text("the next one"))
    await works(client, peer)
    assert client._receivers == {}


async def test_error_status(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    status = encode_status(StatusError(Code.NOT_FOUND, "no such container"))
    await peer.send(await next_id(peer), FrameType.RESPONSE, 0, status)
    assert str(await status_of(task)) == "NOT_FOUND: no such container"


@pytest.mark.parametrize("data", [b"", b"\x00\x00\x00\x05\x00", b"\x00\x00\x00\x05\x00\x00\x00\x01\x02\x00ab"])
async def test_server_gone(raw_server: RawServer, soon: Soon, data: bytes) -> None:
    """Between two frames, in a header, in the data: it is all the same."""
    client, peer = raw_server()
    stream = streaming(client)
    tasks = [call(client), asyncio.create_task(stream.receive())]
    await next_id(peer)
    await next_id(peer)
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
    await next_id(peer)
    await peer.write(b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(ConnectionClosed, match="does not speak ttrpc"):
        await soon(task)
    await soon(client.closed)
    assert await peer.receive() is None


async def test_close_ends_calls(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()
    task = call(client)
    await next_id(peer)
    assert not client.closed.done()
    await soon(client.close())
    with pytest.raises(ConnectionClosed, match="this side"):
        await task
    assert client.closed.done()
    assert await peer.receive() is None
    await soon(client.close())  # once more does nothing


async def test_close_at_once(raw_server: RawServer, soon: Soon) -> None:
    """Before the reading task's first step."""
    client, peer = raw_server()
    await soon(client.close())
    assert await peer.receive() is None


async def test_waiting_for_closed_may_be_cancelled(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()

    async def wait() -> None:
        await client.closed

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not client.closed.done()
    peer.sock.close()
    await soon(client.closed)


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


async def test_stream_given_up_while_there_is_no_room(raw_server: RawServer, soon: Soon) -> None:
    """It never begins."""
    client, peer = raw_server()
    big = StringValue(value="x" * (1 << 20))
    calls = [asyncio.create_task(client.call("/a.B/C", big, Empty)) for _ in range(2)]
    await next_id(peer)  # the first has begun to leave, the second is waiting in our buffer
    stream = streaming(client)
    receiver = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    await next_id(peer)
    assert (await status_of(soon(receiver))).code is Code.CANCELLED
    for stream_id in (1, 3):
        await peer.send(stream_id, FrameType.RESPONSE, 0, encode_reply(b""))
    await asyncio.gather(*calls)
    assert client._receivers == {}
    await works(client, peer)


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
