"""The server against a client that speaks frames by hand: every way to be wrong, and what is answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Code, Context, Method, StatusError
from ttrpc.frame import MAX_DATA, NO_DATA, REMOTE_CLOSED, REMOTE_OPEN, Frame, FrameType, FramingError
from ttrpc.messages import encode_request
from ttrpc.service import ClientStreaming, Unary


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
Reports = list[tuple[str, BaseException]]

END = REMOTE_CLOSED | NO_DATA


def text(value: str) -> bytes:
    return StringValue(value=value).SerializeToString()


def request(method: str, payload: bytes = b"") -> bytes:
    return encode_request(f"/test.Service/{method}", payload, None, None)


@pytest.mark.parametrize("stream_id", [0, 2, 0xFFFF_FFFE])
@pytest.mark.parametrize("frame_type", FrameType)
async def test_even_numbers(raw_client: RawClient, stream_id: int, frame_type: FrameType) -> None:
    peer = raw_client({})
    await peer.send(stream_id, frame_type, 0, request("Echo", text("x")))
    assert (await peer.refusal(stream_id)).code is Code.INVALID_ARGUMENT
    await peer.ask(1, "fine")


@pytest.mark.parametrize("stream_id", [1, 3, 5])
async def test_numbers_that_do_not_increase(raw_client: RawClient, stream_id: int) -> None:
    peer = raw_client({})
    await peer.ask(5, "fine")
    await peer.send(stream_id, FrameType.REQUEST, 0, request("Echo", text("x")))
    assert (await peer.refusal(stream_id)).code is Code.INVALID_ARGUMENT
    await peer.ask(7, "fine")


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x01\xff"])
async def test_request_that_is_none(raw_client: RawClient, data: bytes) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, 0, data)
    assert (await peer.refusal(1)).code is Code.INVALID_ARGUMENT
    await peer.ask(3, "fine")


@pytest.mark.parametrize("method", ["Echo", "Thrice", "Join"])
async def test_payload_that_is_none(raw_client: RawClient, reports: Reports, method: str) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, 0, request(method, b"\xff"))
    error = await peer.refusal(1)
    assert error.code is Code.INVALID_ARGUMENT
    assert "StringValue" in error.message
    await peer.ask(3, "fine")
    assert reports == []


async def test_oversized_request(raw_client: RawClient) -> None:
    peer = raw_client({})
    length = MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + bytes.fromhex("00000001 01 00") + bytes(length))
    error = await peer.refusal(1)
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(length) in error.message
    await peer.ask(3, "fine")


async def test_oversized_data_ends_its_call(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Join"))
    length = MAX_DATA + 1
    await peer.write(length.to_bytes(4, "big") + bytes.fromhex("00000001 03 00") + bytes(length))
    assert (await peer.refusal(1)).code is Code.RESOURCE_EXHAUSTED
    await peer.send(1, FrameType.DATA, END, b"")
    await peer.ask(3, "fine")


async def test_data_without_a_request(raw_client: RawClient) -> None:
    peer = raw_client({})
    await peer.send(1, FrameType.DATA, 0, text("x"))
    assert (await peer.refusal(1)).code is Code.INVALID_ARGUMENT
    await peer.ask(1, "fine")


async def test_data_for_a_unary_call(raw_client: RawClient, soon: Soon) -> None:
    ended = asyncio.Event()

    async def hang(_request: StringValue, _context: Context) -> StringValue:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    peer = raw_client({"Hang": Unary(StringValue, hang)})
    await peer.send(1, FrameType.REQUEST, 0, request("Hang"))
    # The next call's answer shows that the handler has begun.
    await peer.ask(3, "fine")
    await peer.send(1, FrameType.DATA, 0, text("x"))
    assert (await peer.refusal(1)).code is Code.INVALID_ARGUMENT
    await soon(ended.wait())


async def test_data_at_once_after_a_unary_request(raw_client: RawClient) -> None:
    """Refused before the handler's first step: it must be answered all the same."""
    peer = raw_client({})
    await peer.write(
        b"".join(
            [
                bytes([0, 0, 0, len(request("Echo"))]) + bytes.fromhex("00000001 01 00") + request("Echo"),
                bytes.fromhex("00000000 00000001 03 00"),
            ]
        )
    )
    assert (await peer.refusal(1)).code is Code.INVALID_ARGUMENT
    await peer.ask(3, "fine")


async def test_data_after_the_end_of_data(raw_client: RawClient) -> None:
    gate = asyncio.Event()

    async def wait(_requests: AsyncIterator[StringValue], _context: Context) -> StringValue:
        await gate.wait()
        raise AssertionError

    peer = raw_client({"Wait": ClientStreaming(StringValue, wait)})
    await peer.send(1, FrameType.REQUEST, REMOTE_OPEN, request("Wait"))
    await peer.send(1, FrameType.DATA, END, b"")
    await peer.send(1, FrameType.DATA, 0, text("x"))
    assert (await peer.refusal(1)).code is Code.INVALID_ARGUMENT
    await peer.ask(3, "fine")


@pytest.mark.parametrize("frame_type", [0, 4, 255])
async def test_unknown_types_are_passed_over(raw_client: RawClient, frame_type: int) -> None:
    peer = raw_client({})
    await peer.write(bytes([0, 0, 0, 3, 0, 0, 0, 1, frame_type, 0]) + b"abc")
    await peer.ask(1, "fine")


async def test_garbage_closes_the_connection(raw_client: RawClient, reports: Reports) -> None:
    peer = raw_client({})
    await peer.ask(1, "fine")
    with contextlib.suppress(ConnectionError):
        await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert await peer.receive() is None
    assert [type(error) for _where, error in reports] == [FramingError]
