"""The client against a server that speaks frames by hand: the frames of its calls, and when they end."""

import asyncio

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from tests.unit.ttrpc.raw_server import END, RawServer, Soon, call, status_of, streaming, text
from ttrpc import Code, ConnectionClosed, StatusError, Stream
from ttrpc.frame import REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType
from ttrpc.messages import decode_request, encode_reply, encode_status


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
    await peer.works(client)


@pytest.mark.parametrize(("payload", "values"), [(b"", []), (text("last"), ["last"])])
async def test_stream_ended_by_a_response(raw_server: RawServer, payload: bytes, values: list[str]) -> None:
    client, peer = raw_server()
    async with streaming(client) as stream:
        await peer.send(await peer.next_id(), FrameType.RESPONSE, 0, encode_reply(payload))
        assert [reply.value async for reply in stream] == values


async def test_numbers_are_odd_and_increase(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()
    calls = [call(client) for _ in range(100)]
    assert [await peer.next_id() for _ in calls] == list(range(1, 201, 2))
    for number in reversed(range(1, 201, 2)):
        await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text(str(number))))
    assert [(await task).value for task in calls] == [str(number) for number in range(1, 201, 2)]


async def test_numbers_run_out(raw_server: RawServer) -> None:
    client, peer = raw_server()
    client._next_id = 0xFFFF_FFFF
    task = call(client)
    assert await peer.next_id() == 0xFFFF_FFFF
    await peer.send(0xFFFF_FFFF, FrameType.RESPONSE, 0, encode_reply(text("last")))
    assert (await task).value == "last"
    assert (await status_of(call(client))).code is Code.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_timeout_that_is_over_sends_nothing(raw_server: RawServer, timeout_s: float) -> None:
    client, peer = raw_server()
    await peer.works(client)
    assert (await status_of(call(client, timeout_s))).code is Code.DEADLINE_EXCEEDED
    task = call(client)
    number = await peer.next_id()
    assert number == 3
    await peer.send(number, FrameType.RESPONSE, 0, encode_reply(b""))
    await task


async def test_timeout_of_a_stream_whose_server_is_silent(raw_server: RawServer) -> None:
    client, peer = raw_server()
    stream: Stream[Empty, StringValue] = client.stream(
        "/a.B/S", StringValue, request=Empty(), streams_out=True, timeout_s=0.3
    )
    assert (await status_of(stream.receive())).code is Code.DEADLINE_EXCEEDED
    assert client._receivers == {}
    await peer.next_id()
    await peer.works(client)


async def test_late_response_is_dropped(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client, timeout_s=0.3)
    assert (await status_of(task)).code is Code.DEADLINE_EXCEEDED
    await peer.send(await peer.next_id(), FrameType.RESPONSE, 0, encode_reply(text("late")))
    await peer.works(client)


async def test_cancelled_call_tells_the_server(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    number = await peer.next_id()
    task.cancel()
    frame = await peer.receive()
    assert frame is not None
    assert (frame.stream_id, frame.type) == (number, FrameType.RESPONSE)
    await peer.send(number, FrameType.RESPONSE, 0, encode_reply(text("late")))
    await peer.works(client)


async def test_error_status(raw_server: RawServer) -> None:
    client, peer = raw_server()
    task = call(client)
    status = encode_status(StatusError(Code.NOT_FOUND, "no such container"))
    await peer.send(await peer.next_id(), FrameType.RESPONSE, 0, status)
    assert str(await status_of(task)) == "NOT_FOUND: no such container"


async def test_close_ends_calls(raw_server: RawServer, soon: Soon) -> None:
    client, peer = raw_server()
    task = call(client)
    await peer.next_id()
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


async def test_stream_given_up_while_there_is_no_room(raw_server: RawServer, soon: Soon) -> None:
    """It never begins."""
    client, peer = raw_server()
    big = StringValue(value="x" * (1 << 20))
    calls = [asyncio.create_task(client.call("/a.B/C", big, Empty)) for _ in range(2)]
    await peer.next_id()  # the first has begun to leave, the second is waiting in our buffer
    stream = streaming(client)
    receiver = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    await peer.next_id()
    assert (await status_of(soon(receiver))).code is Code.CANCELLED
    for stream_id in (1, 3):
        await peer.send(stream_id, FrameType.RESPONSE, 0, encode_reply(b""))
    await asyncio.gather(*calls)
    assert client._receivers == {}
    await peer.works(client)
