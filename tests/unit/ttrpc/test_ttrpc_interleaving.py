"""Anything may come in any order, in pieces of any size, and every call still gets its own answer."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping

from google.protobuf.wrappers_pb2 import BytesValue, Int64Value
from hypothesis import given, settings
from hypothesis import strategies as st

from ttrpc import Client, Code, Context, Method, Server, Service, StatusError, Stream
from ttrpc.frame import FrameType, encode
from ttrpc.messages import encode_request
from ttrpc.service import Bidirectional, Unary

DEADLINE_S = 20.0


def run_within(work: Coroutine[None, None, None]) -> None:
    """Runs `work` in a loop of its own, as its only task, for at most DEADLINE_S."""

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await work

    asyncio.run(bounded())


class Echo(Service):
    """Answers after `turns` turns of the loop, which the first byte of the request names."""

    def service_methods(self) -> Mapping[str, Method]:
        return {
            "/test.Echo/Unary": Unary(BytesValue, self.unary),
            "/test.Echo/Stream": Bidirectional(Int64Value, self.stream),
        }

    async def unary(self, request: BytesValue, _context: Context) -> BytesValue:
        for _ in range(request.value[0]):
            await asyncio.sleep(0)
        if request.value[0] % 7 == 6:
            raise StatusError(Code.ABORTED, str(len(request.value)))
        return request

    async def stream(self, requests: AsyncIterator[Int64Value], _context: Context) -> AsyncIterator[Int64Value]:
        async for request in requests:
            yield Int64Value(value=request.value + 1)


async def relay(source: socket.socket, sink: socket.socket, pieces: random.Random) -> None:
    """Passes bytes on, cut anew, until one side is gone."""
    loop = asyncio.get_running_loop()
    # A client that closes with answers unread, to calls that it gave up, resets the connection.
    with contextlib.suppress(ConnectionError):
        while data := await loop.sock_recv(source, pieces.choice([1, 3, 10, 11, 100, 65536])):
            await loop.sock_sendall(sink, data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


async def unary(client: Client, turns: int, size: int, give_up_after: int | None) -> None:
    request = BytesValue(value=bytes([turns]) + bytes(size))
    call = asyncio.create_task(client.call("/test.Echo/Unary", request, BytesValue))
    if give_up_after is not None:
        for _ in range(give_up_after):
            await asyncio.sleep(0)
        call.cancel()
    await asyncio.wait([call])
    if call.cancelled():
        assert give_up_after is not None
    elif turns % 7 == 6:
        error = call.exception()
        assert isinstance(error, StatusError)
        assert (error.code, error.message) == (Code.ABORTED, str(size + 1))
    else:
        assert call.result() == request


async def stream(client: Client, numbers: int, leave_after: int | None) -> None:
    talk: Stream[Int64Value, Int64Value] = client.stream(
        "/test.Echo/Stream", Int64Value, request=None, streams_out=True
    )
    async with talk:
        for number in range(numbers):
            if number == leave_after:
                return
            await talk.send(Int64Value(value=number))
            if number % 2:
                assert await talk.receive() == Int64Value(value=number // 2 + 1)
        await talk.close_send()
        rest = [reply.value async for reply in talk]
        assert rest == list(range(numbers // 2 + 1, numbers + 1))


async def run(calls: list[tuple[int, int, int | None]], seed: int) -> None:
    left, left_relay = socket.socketpair()
    right_relay, right = socket.socketpair()
    pieces = random.Random(seed)
    for sock in (left_relay, right_relay):
        sock.setblocking(False)
    relays = [
        asyncio.create_task(relay(left_relay, right_relay, pieces)),
        asyncio.create_task(relay(right_relay, left_relay, pieces)),
    ]
    server = Server([Echo()])
    serving = asyncio.create_task(server.serve(right))
    client = Client(left)
    work = [unary(client, turns, size, give_up) for turns, size, give_up in calls]
    work += [stream(client, turns, give_up) for turns, _size, give_up in calls[::3]]
    pieces.shuffle(work)
    await asyncio.gather(*work)
    assert client._receivers == {}
    await client.close()
    await asyncio.gather(serving, *relays)
    left_relay.close()
    right_relay.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from([0, 1, 50, 3000]), st.none() | st.integers(0, 25)), max_size=20
    ),
    st.integers(0, 2**32),
)
def test_random_interleavings(calls: list[tuple[int, int, int | None]], seed: int) -> None:
    run_within(run(calls, seed))


def conversation() -> bytes:
    """What a client might send, all of it right."""
    request = BytesValue(value=b"\0abc").SerializeToString()
    return b"".join(
        [
            encode(1, FrameType.REQUEST, 0, encode_request("/test.Echo/Unary", request, 5, {"k": "v"})),
            encode(3, FrameType.REQUEST, 2, encode_request("/test.Echo/Stream", b"", None, None)),
            encode(3, FrameType.DATA, 0, Int64Value(value=3).SerializeToString()),
            encode(5, FrameType.REQUEST, 0, encode_request("/test.Echo/Unary", request, None, None)),
            encode(3, FrameType.DATA, 5, b""),
        ]
    )


async def swallow(data: bytes) -> None:
    """A server gets `data` and the end: it must end too, whatever they are, and say nothing to the loop."""
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    ours, theirs = socket.socketpair()
    server = Server([Echo()], on_error=lambda _where, _error: None)
    serving = asyncio.create_task(server.serve(theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    writer.write(data)
    writer.write_eof()
    # A server that closes with our bytes unread resets the connection.
    with contextlib.suppress(ConnectionError):
        await reader.read()
    await serving
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    assert errors == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_server_survives_garbage(data: bytes) -> None:
    run_within(swallow(data))


@settings(max_examples=150, deadline=None)
@given(st.integers(0), st.integers(0, 255), st.integers(0))
def test_server_survives_a_wrong_byte_and_an_early_end(place: int, byte: int, length: int) -> None:
    data = bytearray(conversation())
    data[place % len(data)] = byte
    run_within(swallow(bytes(data[: length % (len(data) + 1)])))


async def read_garbage(data: bytes) -> None:
    """A client that calls gets `data` and the end: each call must end."""
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    ours, theirs = socket.socketpair()
    client = Client(ours)
    talk: Stream[Int64Value, Int64Value] = client.stream(
        "/test.Echo/Stream", Int64Value, request=None, streams_out=True
    )
    calls = [
        asyncio.create_task(client.call("/test.Echo/Unary", BytesValue(value=b"\0"), BytesValue)),
        asyncio.create_task(talk.receive()),
    ]
    await asyncio.sleep(0)
    with theirs:
        theirs.send(data)
        theirs.shutdown(socket.SHUT_WR)
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert result is None or isinstance(result, BytesValue | Int64Value | StatusError)
        await client.closed
    await client.close()
    assert errors == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


answers = st.builds(
    encode,
    st.integers(0, 6),
    st.sampled_from(FrameType),
    st.integers(0, 7),
    st.binary(max_size=20) | st.just(b"\x12\x03\x0a\x01\x00"),
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.lists(answers, max_size=10).map(b"".join))
def test_client_survives_garbage(data: bytes) -> None:
    run_within(read_garbage(data))
