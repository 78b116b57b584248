"""Unary calls between our client and our server."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import BytesValue, StringValue

from ttrpc import Client, Code, Context, Method, StatusError
from ttrpc.frame import MAX_DATA
from ttrpc.service import Unary

Serve = Callable[[Mapping[str, Method]], Client]
Soon = Callable[[Awaitable[object]], Awaitable[object]]
Reports = list[tuple[str, BaseException]]
SAY = "/test.Service/Say"


async def echo(request: StringValue, _context: Context) -> StringValue:
    return request


async def say(client: Client, text: str, timeout_s: float | None = None) -> str:
    return (await client.call(SAY, StringValue(value=text), StringValue, timeout_s=timeout_s)).value


async def status_of(call: Awaitable[object]) -> StatusError:
    with pytest.raises(StatusError) as caught:
        await call
    return caught.value


async def test_reply(serve: Serve) -> None:
    assert await say(serve({"Say": Unary(StringValue, echo)}), "grüß") == "grüß"


async def test_empty_messages(serve: Serve) -> None:
    async def nothing(_request: Empty, _context: Context) -> Empty:
        return Empty()

    assert await serve({"Say": Unary(Empty, nothing)}).call(SAY, Empty(), Empty) == Empty()


async def test_calls_do_not_wait_for_each_other(serve: Serve) -> None:
    """Handlers end in the opposite order of their start; each caller gets its own reply."""
    started: list[str] = []
    gates = {str(number): asyncio.Event() for number in range(50)}

    async def wait(request: StringValue, _context: Context) -> StringValue:
        started.append(request.value)
        if len(started) == len(gates):
            gates[started[-1]].set()
        await gates[request.value].wait()
        before = started.index(request.value) - 1
        if before >= 0:
            gates[started[before]].set()
        return request

    client = serve({"Say": Unary(StringValue, wait)})
    assert await asyncio.gather(*(say(client, name) for name in gates)) == list(gates)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_status_errors_arrive(serve: Serve, reports: Reports, code: Code) -> None:
    async def fail(_request: StringValue, _context: Context) -> StringValue:
        raise StatusError(code, "because")

    error = await status_of(say(serve({"Say": Unary(StringValue, fail)}), "x"))
    assert (error.code, error.message) == (code, "because")
    assert reports == []


async def test_other_exceptions_are_unknown_and_reported(serve: Serve, reports: Reports) -> None:
    async def fail(_request: StringValue, _context: Context) -> StringValue:
        raise FileNotFoundError("no such file: \udcff")

    client = serve({"Say": Unary(StringValue, fail)})
    error = await status_of(say(client, "x"))
    assert (error.code, error.message) == (Code.UNKNOWN, "FileNotFoundError: no such file: \\udcff")
    assert [(where, type(what)) for where, what in reports] == [(SAY, FileNotFoundError)]


async def test_timeout_error_of_the_handler_is_not_the_deadline(serve: Serve, reports: Reports) -> None:
    async def fail(_request: StringValue, _context: Context) -> StringValue:
        raise TimeoutError("of its own")

    error = await status_of(say(serve({"Say": Unary(StringValue, fail)}), "x", timeout_s=30))
    assert (error.code, error.message) == (Code.UNKNOWN, "TimeoutError: of its own")
    assert len(reports) == 1


async def test_handler_that_cancels_itself(serve: Serve) -> None:
    async def fail(_request: StringValue, _context: Context) -> StringValue:
        raise asyncio.CancelledError

    error = await status_of(say(serve({"Say": Unary(StringValue, fail)}), "x"))
    assert error.code is Code.CANCELLED


async def test_unknown_service_and_method(serve: Serve) -> None:
    client = serve({"Say": Unary(StringValue, echo)})
    error = await status_of(client.call("/test.Service/Sing", Empty(), Empty))
    assert error.code is Code.UNIMPLEMENTED
    assert error.message == "service test.Service has no method 'Sing'"
    error = await status_of(client.call("/test.Servic/Say", Empty(), Empty))
    assert error.code is Code.UNIMPLEMENTED
    assert error.message == "there is no service 'test.Servic'"
    assert await say(client, "still here") == "still here"


async def test_metadata(serve: Serve) -> None:
    seen: list[Mapping[str, list[str]]] = []

    async def look(request: StringValue, context: Context) -> StringValue:
        seen.append(context.metadata)
        assert context.method == SAY
        return request

    client = serve({"Say": Unary(StringValue, look)})
    await client.call(
        SAY, StringValue(), StringValue, metadata={"containerd-namespace-ttrpc": "k8s.io", "A": ["1", "2"]}
    )
    await client.call(SAY, StringValue(), StringValue)
    assert seen == [{"containerd-namespace-ttrpc": ["k8s.io"], "a": ["1", "2"]}, {}]


async def test_peer(serve: Serve) -> None:
    async def look(_request: StringValue, context: Context) -> StringValue:
        return StringValue(value=str(context.peer.uid))

    assert (await say(serve({"Say": Unary(StringValue, look)}), "")).isdigit()


async def test_timeout_ends_the_call_and_the_handler(serve: Serve, soon: Soon) -> None:
    ended: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()

    async def hang(_request: StringValue, context: Context) -> StringValue:
        remaining = context.deadline_s
        try:
            await asyncio.Event().wait()
        finally:
            ended.set_result(remaining)
        raise AssertionError

    client = serve({"Say": Unary(StringValue, hang)})
    error = await status_of(say(client, "x", timeout_s=0.3))
    assert error.code is Code.DEADLINE_EXCEEDED
    assert error.message == f"{SAY} was not done within 0.3 s"
    remaining = await soon(ended)
    assert isinstance(remaining, float)
    assert 0 < remaining <= 0.3


async def test_no_timeout_is_no_deadline(serve: Serve) -> None:
    async def look(_request: StringValue, context: Context) -> StringValue:
        return StringValue(value=str(context.deadline_s))

    assert await say(serve({"Say": Unary(StringValue, look)}), "x") == "None"


async def test_cancelling_a_call_cancels_its_handler_only(serve: Serve, soon: Soon) -> None:
    started, ended, other = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hang(request: StringValue, _context: Context) -> StringValue:
        if request.value == "other":
            await other.wait()
            return request
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    client = serve({"Say": Unary(StringValue, hang)})
    kept = asyncio.create_task(say(client, "other"))
    call = asyncio.create_task(say(client, "x"))
    await soon(started.wait())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await soon(ended.wait())
    other.set()
    assert await kept == "other"


async def test_reply_in_spite_of_cancellation_is_dropped(serve: Serve, soon: Soon) -> None:
    """A handler may refuse to be cancelled; what it returns then goes nowhere."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(request: StringValue, _context: Context) -> StringValue:
        if request.value == "next":
            return request
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return request

    client = serve({"Say": Unary(StringValue, stubborn)})
    call = asyncio.create_task(say(client, "x"))
    await soon(started.wait())
    call.cancel()
    await soon(ended.wait())
    assert await say(client, "next") == "next"


async def test_request_at_the_limit_and_above(serve: Serve) -> None:
    async def measure(request: BytesValue, _context: Context) -> StringValue:
        return StringValue(value=str(len(request.value)))

    client = serve({"Say": Unary(BytesValue, measure)})
    overhead = 64
    largest = BytesValue(value=bytes(MAX_DATA - overhead))
    assert (await client.call(SAY, largest, StringValue)).value == str(MAX_DATA - overhead)
    error = await status_of(client.call(SAY, BytesValue(value=bytes(MAX_DATA)), StringValue))
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert str(MAX_DATA) in error.message
    assert (await client.call(SAY, BytesValue(value=b"abc"), StringValue)).value == "3"


async def test_reply_above_the_limit(serve: Serve, reports: Reports) -> None:
    async def long(request: BytesValue, _context: Context) -> BytesValue:
        return BytesValue(value=bytes(int(request.value)))

    client = serve({"Say": Unary(BytesValue, long)})
    error = await status_of(client.call(SAY, BytesValue(value=str(MAX_DATA).encode()), BytesValue))
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert len((await client.call(SAY, BytesValue(value=b"1000"), BytesValue)).value) == 1000
    assert reports == []


async def test_many_large_messages_both_ways(serve: Serve) -> None:
    """More than all buffers hold, at once: whoever writes waits for room, nothing is torn."""

    async def back(request: BytesValue, _context: Context) -> BytesValue:
        return request

    client = serve({"Say": Unary(BytesValue, back)})
    messages = [BytesValue(value=bytes([number]) * (1 << 20)) for number in range(24)]
    assert await asyncio.gather(*(client.call(SAY, message, BytesValue) for message in messages)) == messages


async def test_too_many_calls_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch, soon: Soon) -> None:
    monkeypatch.setattr("ttrpc.connection.MAX_CALLS", 2)
    gate, both = asyncio.Event(), asyncio.Semaphore(0)

    async def wait(request: StringValue, _context: Context) -> StringValue:
        both.release()
        await gate.wait()
        return request

    client = serve({"Say": Unary(StringValue, wait)})
    calls = [asyncio.create_task(say(client, str(number))) for number in range(2)]
    await soon(both.acquire())
    await soon(both.acquire())
    assert (await status_of(say(client, "2"))).code is Code.RESOURCE_EXHAUSTED
    gate.set()
    assert await asyncio.gather(*calls) == ["0", "1"]
    assert await say(client, "3") == "3"
