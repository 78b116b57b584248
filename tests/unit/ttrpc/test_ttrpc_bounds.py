"""Nothing is kept without bound for a peer that is too slow, and nobody else waits for it for long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from ttrpc import Client, Code, Context, Method, StatusError, Stream
from ttrpc.inbox import MAX_BYTES, MAX_MESSAGES
from ttrpc.service import Bidirectional, ClientStreaming, ServerStreaming, Unary

Serve = Callable[[Mapping[str, Method]], Client]
Soon = Callable[[Awaitable[object]], Awaitable[object]]


@pytest.fixture
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which somebody must be too slow; the others would fail on a busy machine."""
    monkeypatch.setattr("ttrpc.inbox.STALL_S", 0.05)


async def echo(request: Int64Value, _context: Context) -> Int64Value:
    return request


async def status_of(call: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value


@pytest.mark.usefixtures("impatience")
async def test_client_that_does_not_take_replies(serve: Serve, soon: Soon) -> None:
    ended = asyncio.Event()

    async def flood(_request: Int64Value, _context: Context) -> AsyncIterator[Int64Value]:
        try:
            while True:
                yield Int64Value(value=1)
        finally:
            ended.set()

    client = serve({"Flood": ServerStreaming(Int64Value, flood), "Echo": Unary(Int64Value, echo)})
    stream: Stream[Int64Value, Int64Value] = client.stream(
        "/test.Service/Flood", Int64Value, request=Int64Value(), streams_out=True
    )
    async with stream:
        # The stream is given up and its handler cancelled; other calls go on, before and after.
        assert (await client.call("/test.Service/Echo", Int64Value(value=7), Int64Value)).value == 7
        await soon(ended.wait())
        assert (await status_of(stream.receive())).code is Code.RESOURCE_EXHAUSTED
        assert (await client.call("/test.Service/Echo", Int64Value(value=8), Int64Value)).value == 8


async def test_client_that_takes_replies_in_time_loses_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.inbox.STALL_S", 30.0)

    async def flood(_request: Int64Value, _context: Context) -> AsyncIterator[Int64Value]:
        for number in range(10 * MAX_MESSAGES):
            yield Int64Value(value=number)

    client = serve({"Flood": ServerStreaming(Int64Value, flood)})
    stream: Stream[Int64Value, Int64Value] = client.stream(
        "/test.Service/Flood", Int64Value, request=Int64Value(), streams_out=True
    )
    got = []
    async with stream:
        async for reply in stream:
            got.append(reply.value)
            if len(got) % MAX_MESSAGES == 0:
                await asyncio.sleep(0.01)  # slow, but not that slow
    assert got == list(range(10 * MAX_MESSAGES))


@pytest.mark.usefixtures("impatience")
async def test_handler_that_does_not_take_requests(serve: Serve, soon: Soon) -> None:
    ended = asyncio.Event()

    async def ignore(_requests: AsyncIterator[BytesValue], _context: Context) -> Int64Value:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    client = serve({"Ignore": ClientStreaming(BytesValue, ignore), "Echo": Unary(Int64Value, echo)})
    stream: Stream[BytesValue, Int64Value] = client.stream(
        "/test.Service/Ignore", Int64Value, request=None, streams_out=False
    )

    async def send_for_ever() -> None:
        while True:
            await stream.send(BytesValue(value=bytes(100_000)))

    async with stream:
        assert (await status_of(soon(send_for_ever()))).code is Code.RESOURCE_EXHAUSTED
        await soon(ended.wait())
        assert (await client.call("/test.Service/Echo", Int64Value(value=8), Int64Value)).value == 8


async def test_handler_stops_when_nobody_reads(serve: Serve, monkeypatch: pytest.MonkeyPatch, soon: Soon) -> None:
    """A connection that is not read holds the senders back, so that little is kept on this side."""
    monkeypatch.setattr("ttrpc.inbox.STALL_S", 30.0)
    sent = 0
    enough = asyncio.Event()

    async def flood(_request: Int64Value, _context: Context) -> AsyncIterator[BytesValue]:
        nonlocal sent
        while True:
            yield BytesValue(value=bytes(64 << 10))
            sent += 64 << 10
            if sent >= MAX_BYTES:
                enough.set()

    client = serve({"Flood": ServerStreaming(Int64Value, flood)})
    stream: Stream[Int64Value, BytesValue] = client.stream(
        "/test.Service/Flood", BytesValue, request=Int64Value(), streams_out=True
    )
    async with stream:
        await soon(enough.wait())
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.05)
        # The taker's queue, both read buffers, the kernel's, the write buffer.
        assert sent < MAX_BYTES + (3 << 20)
        assert await stream.receive() is not None


class Turns:
    """Counts the loop's turns."""

    def __init__(self) -> None:
        self.count = 0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)

    def stop(self) -> None:
        self._task.cancel()


@pytest.fixture
async def turns() -> AsyncIterator[Turns]:
    counter = Turns()
    yield counter
    counter.stop()


async def test_senders_do_not_keep_the_loop_for_themselves(serve: Serve, turns: Turns) -> None:
    """Though there is room for every one of these messages, others run in between."""

    async def echo_count(requests: AsyncIterator[Int64Value], _context: Context) -> AsyncIterator[Int64Value]:
        received = [request async for request in requests]
        before = turns.count
        for request in received:
            yield request
        assert turns.count - before >= len(received) - 1

    client = serve({"Talk": Bidirectional(Int64Value, echo_count)})
    stream: Stream[Int64Value, Int64Value] = client.stream(
        "/test.Service/Talk", Int64Value, request=None, streams_out=True
    )
    async with stream:
        await stream.send(Int64Value())
        before = turns.count
        for number in range(MAX_MESSAGES):
            await stream.send(Int64Value(value=number))
        assert turns.count - before >= MAX_MESSAGES - 1
        await stream.close_send()
        assert len([reply async for reply in stream]) == MAX_MESSAGES + 1
