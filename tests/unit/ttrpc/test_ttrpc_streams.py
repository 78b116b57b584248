"""Streaming calls of all three kinds between our client and our server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value

from ttrpc import Client, Code, Context, Method, StatusError, Stream
from ttrpc.frame import MAX_DATA
from ttrpc.service import Bidirectional, ClientStreaming, ServerStreaming

Serve = Callable[[Mapping[str, Method]], Client]
Soon = Callable[[Awaitable[object]], Awaitable[object]]
Numbers = Stream[Int64Value, Int64Value]


async def count(request: Int64Value, _context: Context) -> AsyncIterator[Int64Value]:
    for number in range(request.value):
        yield Int64Value(value=number)


async def add(requests: AsyncIterator[Int64Value], _context: Context) -> Int64Value:
    return Int64Value(value=sum([request.value async for request in requests]))


async def double(requests: AsyncIterator[Int64Value], _context: Context) -> AsyncIterator[Int64Value]:
    async for request in requests:
        yield Int64Value(value=2 * request.value)


def server_streaming(client: Client, number: int, timeout_s: float | None = None) -> Numbers:
    request = Int64Value(value=number)
    return client.stream("/test.Service/M", Int64Value, request=request, streams_out=True, timeout_s=timeout_s)


def client_streaming(client: Client) -> Numbers:
    return client.stream("/test.Service/M", Int64Value, request=None, streams_out=False)


def bidirectional(client: Client) -> Numbers:
    return client.stream("/test.Service/M", Int64Value, request=None, streams_out=True)


async def status_of(call: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value


@pytest.mark.parametrize("number", [0, 1, 1000])
async def test_server_streaming(serve: Serve, number: int) -> None:
    client = serve({"M": ServerStreaming(Int64Value, count)})
    async with server_streaming(client, number) as stream:
        assert [reply.value async for reply in stream] == list(range(number))
        assert await stream.receive() is None
    assert client._receivers == {}


async def test_stream_without_a_block(serve: Serve) -> None:
    client = serve({"M": ServerStreaming(Int64Value, count)})
    assert [reply.value async for reply in server_streaming(client, 3)] == [0, 1, 2]


@pytest.mark.parametrize("number", [0, 1, 1000])
async def test_client_streaming(serve: Serve, number: int) -> None:
    client = serve({"M": ClientStreaming(Int64Value, add)})
    async with client_streaming(client) as stream:
        for value in range(number):
            await stream.send(Int64Value(value=value))
        assert (await stream.reply()).value == sum(range(number))
    assert client._receivers == {}


async def test_bidirectional_ping_pong(serve: Serve) -> None:
    client = serve({"M": Bidirectional(Int64Value, double)})
    async with bidirectional(client) as stream:
        for value in [7, 0, -3]:  # 0 is an empty message
            await stream.send(Int64Value(value=value))
            reply = await stream.receive()
            assert reply is not None
            assert reply.value == 2 * value
        await stream.close_send()
        assert await stream.receive() is None
        await stream.close_send()  # once more does nothing
        with pytest.raises(RuntimeError, match="nothing"):
            await stream.send(Int64Value())


async def test_one_task_sends_while_another_receives(serve: Serve) -> None:
    client = serve({"M": Bidirectional(Int64Value, double)})
    async with bidirectional(client) as stream:

        async def send() -> None:
            for value in range(2000):
                await stream.send(Int64Value(value=value))
            await stream.close_send()

        sender = asyncio.create_task(send())
        assert [reply.value async for reply in stream] == [2 * value for value in range(2000)]
        await sender


async def test_streams_and_calls_share_a_connection(serve: Serve) -> None:
    client = serve({"M": ServerStreaming(Int64Value, count)})

    async def total(number: int) -> int:
        return sum([reply.value async for reply in server_streaming(client, number)])

    assert await asyncio.gather(*map(total, range(40))) == [sum(range(number)) for number in range(40)]


async def test_error_after_some_replies(serve: Serve) -> None:
    async def fail(request: Int64Value, context: Context) -> AsyncIterator[Int64Value]:
        async for reply in count(request, context):
            yield reply
        raise StatusError(Code.DATA_LOSS, "the rest is gone")

    async with server_streaming(serve({"M": ServerStreaming(Int64Value, fail)}), 2) as stream:
        assert [await stream.receive(), await stream.receive()] == [Int64Value(value=0), Int64Value(value=1)]
        error = await status_of(stream.receive())
        assert (error.code, error.message) == (Code.DATA_LOSS, "the rest is gone")
        assert (await status_of(stream.receive())).code is Code.DATA_LOSS


async def test_unimplemented_stream(serve: Serve) -> None:
    client = serve({"M": ServerStreaming(Int64Value, count)})
    stream: Numbers = client.stream("/test.Service/N", Int64Value, request=None, streams_out=True)
    async with stream:
        assert (await status_of(stream.receive())).code is Code.UNIMPLEMENTED


async def test_server_ends_while_the_client_sends(serve: Serve, soon: Soon) -> None:
    async def first(requests: AsyncIterator[Int64Value], _context: Context) -> Int64Value:
        async for request in requests:
            return request
        raise AssertionError

    client = serve({"M": ClientStreaming(Int64Value, first)})
    async with client_streaming(client) as stream:

        async def send_for_ever() -> None:
            while True:
                await stream.send(Int64Value(value=5))

        error = await status_of(soon(send_for_ever()))
        assert error.code is Code.FAILED_PRECONDITION
        assert (await stream.reply()).value == 5
    # What crossed the reply on the way has harmed nothing.
    async with client_streaming(client) as stream:
        await stream.send(Int64Value(value=6))
        assert (await stream.reply()).value == 6


async def test_server_fails_while_the_client_sends(serve: Serve, soon: Soon) -> None:
    async def fail(requests: AsyncIterator[Int64Value], _context: Context) -> Int64Value:
        await anext(requests)
        raise StatusError(Code.PERMISSION_DENIED, "not you")

    async with client_streaming(serve({"M": ClientStreaming(Int64Value, fail)})) as stream:

        async def send_for_ever() -> None:
            while True:
                await stream.send(Int64Value(value=5))

        assert (await status_of(soon(send_for_ever()))).code is Code.PERMISSION_DENIED
        assert (await status_of(stream.reply())).code is Code.PERMISSION_DENIED


async def test_leaving_the_block_cancels_the_handler(serve: Serve, soon: Soon) -> None:
    ended = asyncio.Event()

    async def endless(_request: Int64Value, _context: Context) -> AsyncIterator[Int64Value]:
        try:
            yield Int64Value(value=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    client = serve({"M": ServerStreaming(Int64Value, endless)})
    async with server_streaming(client, 1) as stream:
        assert (await anext(stream)).value == 1
    await soon(ended.wait())
    assert client._receivers == {}
    assert (await status_of(stream.receive())).code is Code.CANCELLED


async def test_cancel_wakes_the_receiver(serve: Serve, soon: Soon) -> None:
    client = serve({"M": Bidirectional(Int64Value, double)})
    stream = bidirectional(client)
    await stream.send(Int64Value(value=1))
    await stream.receive()
    receiver = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    stream.cancel()
    assert (await status_of(soon(receiver))).code is Code.CANCELLED
    assert (await status_of(stream.send(Int64Value()))).code is Code.CANCELLED
    stream.cancel()  # once more does nothing


async def test_cancel_before_the_beginning(serve: Serve) -> None:
    client = serve({"M": ServerStreaming(Int64Value, count)})
    stream = server_streaming(client, 1)
    stream.cancel()
    assert (await status_of(stream.receive())).code is Code.CANCELLED
    assert client._next_id == 1  # nothing was sent


async def test_generator_is_closed_when_a_reply_cannot_be_sent(serve: Serve, soon: Soon) -> None:
    ended = asyncio.Event()

    async def long(_request: Int64Value, _context: Context) -> AsyncIterator[BytesValue]:
        try:
            yield BytesValue(value=bytes(MAX_DATA))
        finally:
            ended.set()

    async with server_streaming(serve({"M": ServerStreaming(Int64Value, long)}), 1) as stream:
        assert (await status_of(stream.receive())).code is Code.RESOURCE_EXHAUSTED
    await soon(ended.wait())


async def test_message_too_long_to_send_leaves_the_stream_whole(serve: Serve) -> None:
    async def measure(requests: AsyncIterator[BytesValue], _context: Context) -> Int64Value:
        return Int64Value(value=sum([len(request.value) async for request in requests]))

    client = serve({"M": ClientStreaming(BytesValue, measure)})
    stream: Stream[BytesValue, Int64Value] = client.stream(
        "/test.Service/M", Int64Value, request=None, streams_out=False
    )
    async with stream:
        await stream.send(BytesValue(value=bytes(10)))
        assert (await status_of(stream.send(BytesValue(value=bytes(MAX_DATA))))).code is Code.RESOURCE_EXHAUSTED
        await stream.send(BytesValue(value=bytes(20)))
        assert (await stream.reply()).value == 30


async def test_timeout_of_a_stream(serve: Serve, soon: Soon) -> None:
    ended = asyncio.Event()

    async def endless(_request: Int64Value, context: Context) -> AsyncIterator[Int64Value]:
        try:
            assert context.deadline_s is not None
            yield Int64Value(value=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with server_streaming(serve({"M": ServerStreaming(Int64Value, endless)}), 1, timeout_s=0.3) as stream:
        assert (await anext(stream)).value == 1
        assert (await status_of(stream.receive())).code is Code.DEADLINE_EXCEEDED
        assert (await status_of(stream.receive())).code is Code.DEADLINE_EXCEEDED
    await soon(ended.wait())


async def test_requests_in_one_message_method(serve: Serve) -> None:
    async with server_streaming(serve({"M": ServerStreaming(Int64Value, count)}), 1) as stream:
        with pytest.raises(RuntimeError, match="nothing"):
            await stream.send(Int64Value())


async def test_closing_the_client_ends_streams(serve: Serve, soon: Soon) -> None:
    client = serve({"M": Bidirectional(Int64Value, double)})
    stream = bidirectional(client)
    await stream.send(Int64Value(value=1))
    await stream.receive()
    receiver = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    await client.close()
    assert (await status_of(soon(receiver))).code is Code.UNAVAILABLE
    assert (await status_of(stream.send(Int64Value()))).code is Code.UNAVAILABLE
