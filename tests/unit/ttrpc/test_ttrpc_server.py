"""A server's life: connections apart from each other, names, errors told, and the end."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.unit.ttrpc.served import Connect, Gate, MakeServer, Named, Pair, Soon, listen, say, status_of
from ttrpc import Client, Code, ConnectionClosed, Context, Method, Server, Service
from ttrpc.frame import FrameType, encode
from ttrpc.service import ServerStreaming, Unary


async def test_connections_are_apart(server: MakeServer, connect: Connect, soon: Soon) -> None:
    """When one client goes, only its handlers are cancelled."""
    gate = Gate()
    serving = server(gate.methods())
    one, other = connect(serving), connect(serving)
    calls = [say(one, "1"), say(one, "2"), say(other, "3")]
    for _ in calls:
        await soon(gate.started.acquire())
    await soon(one.close())
    for call in calls[:2]:
        assert (await status_of(call)).code is Code.UNAVAILABLE
    gate.open.set()
    assert (await calls[2]).value == "3"
    assert gate.cancelled == 2


async def test_serve_returns_when_the_handlers_are_over(sockets: Pair, soon: Soon) -> None:
    cleaned = asyncio.Event()
    started = asyncio.Event()

    async def slow_to_end(request: StringValue, _context: Context) -> AsyncIterator[StringValue]:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned.set()
        yield request

    class Slow(Service):
        def service_methods(self) -> Mapping[str, Method]:
            return {"/test.Service/Say": ServerStreaming(StringValue, slow_to_end)}

    ours, theirs = sockets()
    serving = asyncio.create_task(Server([Slow()]).serve(theirs))
    client = Client(ours)
    call = say(client, "x")
    await soon(started.wait())
    await client.close()
    await soon(serving)
    assert cleaned.is_set()
    assert theirs.fileno() == -1
    assert (await status_of(call)).code is Code.UNAVAILABLE


async def test_cancelling_serve(server: MakeServer, sockets: Pair, soon: Soon) -> None:
    gate = Gate()
    ours, theirs = sockets()
    serving = asyncio.create_task(server(gate.methods()).serve(theirs))
    client = Client(ours)
    call = say(client, "x")
    await soon(gate.started.acquire())
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(serving)
    assert gate.cancelled == 1
    assert isinstance(await status_of(call), ConnectionClosed)


async def test_handler_that_does_not_end(connect: Connect, monkeypatch: pytest.MonkeyPatch, soon: Soon) -> None:
    """It is left behind, and told of; it does not hold up the server."""
    monkeypatch.setattr("ttrpc.connection.CANCEL_S", 0.02)
    started, let_go = asyncio.Event(), asyncio.Event()

    async def stubborn(request: StringValue, _context: Context) -> StringValue:
        started.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return request

    class Stubborn(Service):
        def service_methods(self) -> Mapping[str, Method]:
            return {"/test.Service/Say": Unary(StringValue, stubborn)}

    told: asyncio.Queue[tuple[str, BaseException]] = asyncio.Queue()
    client = connect(Server([Stubborn()], on_error=lambda where, error: told.put_nowait((where, error))))
    call = say(client, "x")
    await soon(started.wait())
    await client.close()
    assert (await status_of(call)).code is Code.UNAVAILABLE
    with pytest.raises(TimeoutError, match=r"did not end within 0\.02 s"):
        raise (await asyncio.wait_for(told.get(), 10))[1]
    let_go.set()


async def test_close_waits_for_handlers(
    server: MakeServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, soon: Soon
) -> None:
    monkeypatch.setattr("ttrpc.server.LINGER_S", 60.0)  # which clients that read need nothing of
    gate = Gate()
    serving = server(gate.methods())
    client, idle = connect(serving), connect(serving)
    call = say(client, "last")
    await soon(gate.started.acquire())
    closing = asyncio.create_task(serving.close(30))
    await asyncio.sleep(0)  # the first step of close is to refuse
    refused = await status_of(say(idle, "too late"))
    assert (refused.code, refused.message) == (Code.UNAVAILABLE, "the server is shutting down")
    assert not closing.done()
    gate.open.set()
    assert (await call).value == "last"
    await soon(closing)
    await soon(client.closed)
    await soon(idle.closed)
    assert gate.cancelled == 0


async def test_close_cancels_after_the_grace(server: MakeServer, connect: Connect, soon: Soon) -> None:
    gate = Gate()
    serving = server(gate.methods())
    client = connect(serving)
    call = say(client, "x")
    await soon(gate.started.acquire())
    await soon(serving.close(0.01))
    error = await status_of(call)
    assert (error.code, error.message) == (Code.UNAVAILABLE, "the server is shutting down")
    assert gate.cancelled == 1
    await soon(serving.close(0.01))  # once more does nothing


async def test_close_while_a_client_does_not_read(
    server: MakeServer, sockets: Pair, monkeypatch: pytest.MonkeyPatch, soon: Soon
) -> None:
    monkeypatch.setattr("ttrpc.server.LINGER_S", 0.02)
    serving = server(Gate().methods())
    ours, theirs = sockets()
    task = asyncio.create_task(serving.serve(theirs))
    ours.setblocking(False)
    ours.send(encode(1, FrameType.REQUEST, 0, b""))
    assert await soon(asyncio.get_running_loop().sock_recv(ours, 1)) == b"\0"  # it is being served
    await soon(serving.close(0))
    await soon(task)


async def test_request_after_the_servers_end(
    server: MakeServer, sockets: Pair, monkeypatch: pytest.MonkeyPatch, soon: Soon
) -> None:
    """It cannot be answered any more, and harms nothing."""
    monkeypatch.setattr("ttrpc.server.LINGER_S", 60.0)
    serving = server(Gate().methods())
    ours, theirs = sockets()
    task = asyncio.create_task(serving.serve(theirs))
    ours.setblocking(False)
    ours.send(encode(1, FrameType.REQUEST, 0, b""))
    loop = asyncio.get_running_loop()
    assert await soon(loop.sock_recv(ours, 65536)) != b""
    closing = asyncio.create_task(serving.close(0))
    assert await soon(loop.sock_recv(ours, 65536)) == b""
    ours.send(encode(3, FrameType.REQUEST, 0, b""))
    ours.close()
    await soon(closing)
    await soon(task)


async def test_closed_server_serves_nobody(server: MakeServer, connect: Connect, tmp_path: Path, soon: Soon) -> None:
    serving = server(Gate().methods())
    await serving.close(0)
    assert isinstance(await status_of(say(connect(serving), "x")), ConnectionClosed)
    await soon(serving.serve_listener(listen(tmp_path / "s")))
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(tmp_path / "s"))


async def test_aliases(connect: Connect, soon: Soon) -> None:
    server = Server(
        [Named("pkg.v3.Task", "task"), Named("pkg.v3.Other", "other")], aliases={"pkg.v2.Task": "pkg.v3.Task"}
    )
    client = connect(server)
    for service, answer in [("pkg.v3.Task", "task x"), ("pkg.v2.Task", "task x"), ("pkg.v3.Other", "other x")]:
        assert (await say(client, "x", service)).value == answer
    assert (await status_of(say(client, "x", "pkg.v2.Other"))).code is Code.UNIMPLEMENTED


def test_names_that_clash() -> None:
    with pytest.raises(ValueError, match=r"/a\.B/Say is served twice"):
        Server([Named("a.B", ""), Named("a.B", "")])
    with pytest.raises(ValueError, match=r"alias x\.Y: no service a\.C is served"):
        Server([Named("a.B", "")], aliases={"x.Y": "a.C"})
    with pytest.raises(ValueError, match=r"alias a\.C: a service of that name is served"):
        Server([Named("a.B", ""), Named("a.C", "")], aliases={"a.C": "a.B"})


async def test_errors_go_to_the_log_unless_told_otherwise(
    connect: Connect, caplog: pytest.LogCaptureFixture, soon: Soon
) -> None:
    class Broken(Service):
        def service_methods(self) -> Mapping[str, Method]:
            return {"/test.Service/Say": Unary(StringValue, self.say)}

        async def say(self, _request: StringValue, _context: Context) -> StringValue:
            raise KeyError("lost")

    assert (await status_of(say(connect(Server([Broken()])), "x"))).message == "KeyError: 'lost'"
    assert [(record.name, record.message) for record in caplog.records] == [("ttrpc", "/test.Service/Say: 'lost'")]


async def test_callback_that_raises_harms_nothing(connect: Connect, soon: Soon) -> None:
    class Broken(Service):
        def service_methods(self) -> Mapping[str, Method]:
            return {"/test.Service/Say": Unary(StringValue, self.say)}

        async def say(self, _request: StringValue, _context: Context) -> StringValue:
            raise KeyError("lost")

    def raises(_where: str, _error: BaseException) -> None:
        raise RuntimeError("the callback")

    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    client = connect(Server([Broken()], on_error=raises))
    for _ in range(2):
        assert (await status_of(say(client, "x"))).code is Code.UNKNOWN
    assert [str(context["exception"]) for context in told] == ["the callback", "the callback"]
