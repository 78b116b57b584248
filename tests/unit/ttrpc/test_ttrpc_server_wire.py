"""The server against a client that speaks frames by hand: the frames of good calls, and when they end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from ttrpc import Code, Context, Method, StatusError
from ttrpc.frame import NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType
from ttrpc.inbox import MAX_MESSAGES
from ttrpc.messages import encode_request, encode_status
from ttrpc.request_pb2 import Request
from ttrpc.service import ClientStreaming, ServerStreaming, Unary


class Peer(Protocol):
    """What the fixture's raw client can do."""

    async def write(self, data: bytes) -> None: ...
    async def send(self, stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> None: ...
    async def receive(self) -> Frame | None: ...
    async def ask(self, stream_id: int, value: str) -> None: ...
    async def reply(self, stream_id: int) -> str: ...
    async def refusal(self, stream_id: int) -> StatusError: ...


RawClient = Callable[[Mapping[str, Method]], Peer]
Soon = Callable[[Awaitable[object]], Awaitable[object]]

END = REMOTE_CLOSED | NO_DATA


def text(value: str) -> bytes:
    return StringValue(value=value).SerializeToString()


def request(method: str, payload: bytes = b"") -> bytes:
    return encode_request(f"/test.Service/{method}", payload, None, None)


async def test_unary_frames(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, 0, request("Echo", text("hi")))
    frame = await peer.receive()
    # A Response has no status if all went well: field 2 alone, with a StringValue in it.
    assert frame == Frame(1, FrameType.RESPONSE, 0, b"\x12\x04\x0a\x02hi")


async def test_server_streaming_frames(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, REMOTE_CLOSED, request("Thrice", text("x")))
    frames = [await peer.receive() for _ in range(4)]
    assert frames == [Frame(1, FrameType.DATA, 0, text("x"))] * 3 + [Frame(1, FrameType.DATA, END, b"")]


async def test_client_streaming_frames(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Join"))
    for value in "a", "", "b":
        await peer.send(1, FrameType.DATA, 0, text(value))
    await peer.send(1, FrameType.DATA, END, b"")
    assert await peer.reply(1) == "a++b"


async def test_last_message_with_the_end_in_one_frame(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Join"))
    await peer.send(1, FrameType.DATA, REMOTE_CLOSED, text("a"))
    assert await peer.reply(1) == "a"


async def test_first_message_in_the_request(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Join", text("a")))
    await peer.send(1, FrameType.DATA, 0, text("b"))
    await peer.send(1, FrameType.DATA, END, b"")
    assert await peer.reply(1) == "a+b"


@pytest.mark.parametrize("flags", [0, REMOTE_CLOSED])
async def test_streaming_method_called_with_one_message(raw_client: RawClient, flags: int) -> None:
    """Nothing says that data will follow, so nothing is waited for."""
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, flags, request("Join", text("a")))
    assert await peer.reply(1) == "a"


async def test_largest_number(raw_client: RawClient) -> None:
    await raw_client({}).ask(0xFFFF_FFFF, "fine")


async def test_bytes_one_by_one(raw_client: RawClient) -> None:
    peer = raw_client({})
    data = request("Echo", text("slow"))
    for byte in len(data).to_bytes(4, "big") + bytes.fromhex("00000001 01 00") + data:
        await peer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert await peer.reply(1) == "slow"


async def test_response_from_a_client_cancels_the_call(raw_client: RawClient, soon: Soon) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(_request: StringValue, _context: Context) -> StringValue:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    peer = raw_client({"Hang": Unary(StringValue, hang)})
    await peer.send(1, FrameType.REQUEST, 0, request("Hang"))
    await soon(started.wait())
    await peer.send(1, FrameType.RESPONSE, 0, encode_status(StatusError(Code.CANCELLED, "")))
    await soon(ended.wait())
    await peer.ask(3, "and nothing was answered before this")


async def test_handler_that_goes_on_after_its_call_was_cancelled(raw_client: RawClient, soon: Soon) -> None:
    """What it still says is not sent: the stream has no reader."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(request: StringValue, _context: Context) -> AsyncIterator[StringValue]:
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            yield request
        finally:
            ended.set()

    peer = raw_client({"Stubborn": ServerStreaming(StringValue, stubborn)})
    await peer.send(1, FrameType.REQUEST, REMOTE_CLOSED, request("Stubborn", text("x")))
    await soon(started.wait())
    await peer.send(1, FrameType.RESPONSE, 0, b"")
    await soon(ended.wait())
    await peer.ask(3, "and nothing was sent before this")


async def test_data_that_cross_an_answer_waiting_for_room(raw_client: RawClient) -> None:
    """The client does not read for a while; one call ends meanwhile, and its client still sends."""

    async def big(_request: StringValue, _context: Context) -> BytesValue:
        return BytesValue(value=bytes(1 << 20))

    taken = asyncio.Event()

    async def first(requests: AsyncIterator[StringValue], _context: Context) -> StringValue:
        async for message in requests:
            taken.set()
            return message
        raise AssertionError

    peer = raw_client({"Big": Unary(StringValue, big), "First": ClientStreaming(StringValue, first)})
    for stream_id in (1, 3, 5):
        await peer.send(stream_id, FrameType.REQUEST, 0, request("Big"))
    await peer.send(7, FrameType.REQUEST, REMOTE_OPEN, request("First"))
    for value in "a", "b", "c":
        await peer.send(7, FrameType.DATA, 0, text(value))
        await asyncio.wait_for(taken.wait(), 10)
    for stream_id in (1, 3, 5):
        frame = await peer.receive()
        assert frame is not None
        assert frame.stream_id == stream_id
    assert await peer.reply(7) == "a"
    await peer.ask(9, "and nothing else was answered")


async def test_handler_ends_with_its_queue_full(raw_client: RawClient) -> None:
    """The reader, which waits for room in that queue, goes on at once."""
    gate = asyncio.Event()

    async def ignore(_requests: AsyncIterator[StringValue], _context: Context) -> StringValue:
        await gate.wait()
        return StringValue(value="done")

    peer = raw_client({"Ignore": ClientStreaming(StringValue, ignore)})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Ignore"))
    for _ in range(MAX_MESSAGES + 1):
        await peer.send(1, FrameType.DATA, 0, text("x"))
    gate.set()
    assert await peer.reply(1) == "done"
    await peer.ask(3, "and nothing else was answered")


async def test_data_after_the_answer_is_passed_over(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.ask(1, "fine")
    await peer.send(1, FrameType.DATA, 0, text("x"))
    await peer.ask(3, "fine")


async def test_deadline_of_the_wire(raw_client: RawClient, soon: Soon) -> None:
    """The server keeps the deadline itself: a Go client is not told of by any frame."""
    ended = asyncio.Event()

    async def hang(_request: StringValue, _context: Context) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    peer = raw_client({"Hang": Unary(StringValue, hang)})
    await peer.send(1, FrameType.REQUEST, 0, encode_request("/test.Service/Hang", b"", 0.3, None))
    assert (await peer.refusal(1)).code is Code.DEADLINE_EXCEEDED
    await soon(ended.wait())


async def test_deadline_that_is_over(raw_client: RawClient) -> None:
    """Go sends a negative timeout when the caller's deadline has passed."""
    peer = raw_client({})
    over = Request(service="test.Service", method="Echo", timeout_nano=-5).SerializeToString()
    await peer.send(1, FrameType.REQUEST, 0, over)
    assert (await peer.refusal(1)).code is Code.DEADLINE_EXCEEDED
    await peer.ask(3, "fine")


async def test_longest_deadline(raw_client: RawClient) -> None:
    peer = raw_client({})
    long = Request(service="test.Service", method="Echo", payload=text("x"), timeout_nano=2**63 - 1)
    await peer.send(1, FrameType.REQUEST, 0, long.SerializeToString())
    assert await peer.reply(1) == "x"
