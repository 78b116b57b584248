"""A server's listeners: who is let in, and when."""

import asyncio
import os
import resource
import socket
from pathlib import Path

import pytest

from tests.unit.ttrpc.served import Gate, MakeServer, Named, Pair, Reports, Soon, listen, say, status_of
from ttrpc import Client, ConnectionClosed, Server


async def dial(path: Path) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(path))
    except OSError:
        sock.close()
        raise
    return Client(sock)


async def test_listener_serves_many(tmp_path: Path, soon: Soon) -> None:
    server = Server([Named("test.Service", "hello")])
    serving = asyncio.create_task(server.serve_listener(listen(tmp_path / "s")))
    clients = [await dial(tmp_path / "s") for _ in range(20)]
    replies = await asyncio.gather(*(say(client, str(number)) for number, client in enumerate(clients)))
    assert [reply.value for reply in replies] == [f"hello {number}" for number in range(20)]
    await soon(server.close(0))
    # When close returns, nobody can connect any more: not even before the loop's next turn.
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
        late.connect(str(tmp_path / "s"))
    await soon(serving)
    for client in clients:
        await soon(client.closed)


async def test_cancelled_listener_leaves_connections(server: MakeServer, tmp_path: Path, soon: Soon) -> None:
    gate = Gate()
    serving = server(gate.methods())
    accepting = asyncio.create_task(serving.serve_listener(listen(tmp_path / "s")))
    client = await dial(tmp_path / "s")
    call = say(client, "x")
    await soon(gate.started.acquire())
    accepting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(accepting)
    with pytest.raises(ConnectionRefusedError):
        await dial(tmp_path / "s")
    gate.open.set()
    assert (await call).value == "x"
    await soon(client.close())


async def test_who_comes_by_the_number_of_a_cancelled_listener_is_heard(tmp_path: Path, soon: Soon) -> None:
    """The loop stops watching a listener before that is closed, or it would stop watching whoever is next."""
    loop = asyncio.get_running_loop()
    listener = listen(tmp_path / "s")
    number = listener.fileno()
    accepting = asyncio.create_task(Server([Named("test.Service", "hello")]).serve_listener(listener))
    client = await dial(tmp_path / "s")
    await say(client, "x")  # it waits for the next one now
    came, heard = asyncio.Event(), asyncio.Event()
    pair: list[socket.socket] = []

    def come() -> None:
        if listener.fileno() >= 0:
            loop.call_soon(come)
            return
        pair.extend(socket.socketpair())
        assert pair[0].fileno() == number
        loop.add_reader(pair[0], heard.set)
        came.set()

    loop.call_soon(come)
    accepting.cancel()
    await asyncio.wait([accepting])
    await soon(came.wait())
    pair[1].send(b"x")
    await soon(heard.wait())
    loop.remove_reader(pair[0])
    for sock in pair:
        sock.close()
    await soon(client.close())


async def test_listener_that_cannot_accept(server: MakeServer, soon: Soon) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        await soon(server({}).serve_listener(socket.socket(socket.AF_UNIX)))


async def test_no_file_descriptors_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, soon: Soon) -> None:
    """Accepting goes on when there are some again."""
    monkeypatch.setattr("ttrpc.server.ACCEPT_RETRY_S", 0.01)
    told: asyncio.Queue[str] = asyncio.Queue()
    server = Server([Named("test.Service", "hello")], on_error=lambda where, _error: told.put_nowait(where))
    accepting = asyncio.create_task(server.serve_listener(listen(tmp_path / "s")))
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        await asyncio.get_running_loop().sock_connect(sock, str(tmp_path / "s"))
        assert await soon(told.get()) == "accept"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client = Client(sock)
    assert (await say(client, "x")).value == "hello x"
    await client.close()
    await soon(server.close(0))
    await soon(accepting)


async def test_allowed_uid(sockets: Pair, soon: Soon) -> None:
    server = Server([Named("test.Service", "hello")], allowed_uid=os.getuid())
    ours, theirs = sockets()
    serving = asyncio.create_task(server.serve(theirs))
    client = Client(ours)
    assert (await say(client, "you")).value == "hello you"
    await client.close()
    await soon(serving)


async def test_other_uids_are_refused(sockets: Pair, reports: Reports, soon: Soon) -> None:
    server = Server(
        [Named("test.Service", "hello")],
        allowed_uid=os.getuid() + 1,
        on_error=lambda where, error: reports.append((where, error)),
    )
    ours, theirs = sockets()
    client = Client(ours)
    await soon(server.serve(theirs))
    assert isinstance(await status_of(say(client, "x")), ConnectionClosed)
    await soon(client.closed)
    assert [type(error) for _where, error in reports] == [PermissionError]


async def test_uid_of_a_socket_without_one_is_refused(reports: Reports, soon: Soon) -> None:
    server = Server([], allowed_uid=0, on_error=lambda where, error: reports.append((where, error)))
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _address = listener.accept()
        await soon(server.serve(theirs))
        assert ours.recv(1) == b""
    await asyncio.sleep(0)
    assert [type(error) for _where, error in reports] == [PermissionError]
