"""Connections in a real network namespace to a guest that is socket pairs and frames: the host's half. Needs root."""

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest
import structlog
from structlog.testing import capture_logs

from api.frames import BROKEN, END
from shim.errors import GuestError, HostError
from shim.log import Logger
from shim.network import lookup
from shim.network.forward import MOST, Forwarding
from shim.relay import Streams
from tests.unit.shim.network.dialling import dial
from tests.unit.shim.network.places import Place
from tests.unit.shim.observe import same_fds, until
from tests.unit.shim.task.ends import Guest as Pair
from tests.unit.shim.task.ends import soon
from ttrpc import Code

MIB = 1 << 20
RESET = struct.pack("ii", 1, 0)


class Taken:
    """A connection as the guest has it."""

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.stdin = Pair()
        self.stdout = Pair()

    def close(self) -> None:
        self.stdin.theirs.close()
        self.stdout.theirs.close()


class FakeGuest:
    """What Sandbox.forward asks. Port 1 refuses, port 2 never answers, all others take."""

    def __init__(self) -> None:
        self.taken: asyncio.Queue[Taken] = asyncio.Queue()
        self.all: list[Taken] = []
        self.asked = 0

    async def connect(self, address: str, port: int, streams: Streams) -> None:
        self.asked += 1
        if port == 1:
            raise GuestError(Code.UNAVAILABLE, f"cannot connect to port 1 of {address}: Connection refused")
        if port == 2:
            await asyncio.Event().wait()
        taken = Taken(address, port)
        assert streams.names == ("stdin", "stdout")
        streams.connect("stdin", taken.stdin.ours)
        streams.connect("stdout", taken.stdout.ours)
        self.all.append(taken)
        self.taken.put_nowait(taken)


@pytest.fixture
def guest() -> FakeGuest:
    return FakeGuest()


@pytest.fixture
def log() -> Logger:
    log: Logger = structlog.get_logger()
    return log


@pytest.fixture
async def forwarding(inside: Place, guest: FakeGuest, log: Logger) -> AsyncIterator[Forwarding]:
    with same_fds():
        made = await Forwarding.open(inside.fd, guest.connect, log)
        yield made
        await made.close()
        for taken in guest.all:
            taken.close()


async def receive(client: socket.socket) -> bytes:
    """All that comes, to the end. Raises ConnectionResetError."""
    got = bytearray()
    while data := await soon(asyncio.get_running_loop().sock_recv(client, 1 << 18)):
        got += data
    return bytes(got)


async def is_reset(client: socket.socket) -> bool:
    try:
        await receive(client)
    except ConnectionResetError:
        return True
    finally:
        client.close()
    return False


async def is_turned_away(place: Place, port: int) -> bool:
    """Whether who dials is reset: that may come before it has heard of the connection."""
    try:
        return await is_reset(await dial(place, port))
    except ConnectionResetError:
        return True


async def test_both_ways_and_each_half_ends_by_itself(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())
    assert (server.address, server.port) == ("127.0.0.1", 8080)
    client.sendall(b"all of the question")
    client.shutdown(socket.SHUT_WR)
    assert await server.stdin.receive() == b"all of the question"
    assert server.stdin.ended
    server.stdin.theirs.close()  # who has all of it, closes
    await server.stdout.frame(b"the answer comes afterwards")
    await server.stdout.send(END)
    assert await receive(client) == b"the answer comes afterwards"
    assert await server.stdout.closed()
    client.close()


async def test_the_server_may_end_first(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    client = await dial(inside, 8080, "::1")
    server = await soon(guest.taken.get())
    assert server.address == "::1"
    await server.stdout.frame(b"go away")
    await server.stdout.send(END)
    assert await receive(client) == b"go away"
    client.sendall(b"but listen")
    client.close()
    assert await server.stdin.receive() == b"but listen"
    assert server.stdin.ended


async def test_the_client_dials_a_link_local_address(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    inside.script("addr add fe80::77/64 dev lo nodad")
    # The kernel answers before it has the route to it, which a worker of its own makes.
    until(lambda: "fe80::77" in inside.ip("-6 route show table local"), "the address can be reached")

    client = await dial(inside, 80, "fe80::77", scope=1)
    assert (await soon(guest.taken.get())).address == "fe80::77"
    client.close()


async def test_8_mib_both_ways_at_once_with_slow_readers(
    forwarding: Forwarding, inside: Place, guest: FakeGuest
) -> None:
    loop = asyncio.get_running_loop()
    data, other = os.urandom(8 * MIB), os.urandom(8 * MIB)
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())

    async def answer() -> None:
        for at in range(0, len(other), 100_000):
            await server.stdout.frame(other[at : at + 100_000])
        await server.stdout.send(END)

    async def ask() -> None:
        await loop.sock_sendall(client, data)
        client.shutdown(socket.SHUT_WR)

    asking, answering = asyncio.create_task(ask()), asyncio.create_task(answer())
    question, reply = await asyncio.gather(server.stdin.receive(), receive(client))
    await soon(asyncio.gather(asking, answering))
    assert hashlib.sha256(question).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(reply).digest() == hashlib.sha256(other).digest()
    server.stdin.theirs.close()
    client.close()


async def test_what_the_guest_refuses_is_reset_at_once(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    with capture_logs() as lines:
        assert await is_turned_away(inside, 1)
    assert [line["log_level"] for line in lines if "Connection refused" in str(line)] == ["debug"]
    assert guest.asked == 1


async def test_a_client_that_never_reads_stops_the_guest_and_nobody_else(
    forwarding: Forwarding, inside: Place, guest: FakeGuest
) -> None:
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())
    sent = 0

    async def answer() -> None:
        nonlocal sent
        while True:
            await asyncio.get_running_loop().sock_sendall(server.stdout.theirs, struct.pack(">I", 65536) + bytes(65536))
            sent += 65536

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(answer(), 0.5)
    assert sent < 16 * MIB
    other = await dial(inside, 8081)
    second = await soon(guest.taken.get())
    other.sendall(b"served")
    other.shutdown(socket.SHUT_WR)
    assert await second.stdin.receive() == b"served"
    other.close()
    client.close()
    with pytest.raises(ConnectionError):  # and then it goes away: so must the guest's writer
        await soon(answer())


async def test_a_reset_by_the_client_is_told_as_that(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())
    client.sendall(b"half of i")
    assert await soon(asyncio.get_running_loop().sock_recv(server.stdin.theirs, 4 + 9)) == b"\0\0\0\x09half of i"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    assert await server.stdin.receive() == b""
    assert server.stdin.broken
    assert await server.stdin.closed()
    assert await server.stdout.closed()


@pytest.mark.parametrize("end", [BROKEN, b""])
async def test_a_stream_of_the_guest_that_is_cut_short_is_a_reset(
    forwarding: Forwarding, inside: Place, guest: FakeGuest, end: bytes
) -> None:
    """By the guest's own word, or because its machine is gone."""
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())
    await server.stdout.frame(b"half of i")
    await server.stdout.send(end)
    server.stdout.theirs.close()
    assert await soon(asyncio.get_running_loop().sock_recv(client, 9)) == b"half of i"
    assert await is_reset(client)
    assert await server.stdin.closed()


async def test_a_server_that_takes_no_more_still_says_what_it_has_to(
    forwarding: Forwarding, inside: Place, guest: FakeGuest
) -> None:
    client = await dial(inside, 8080)
    server = await soon(guest.taken.get())
    client.sendall(b"not wanted")
    server.stdin.theirs.close()
    await server.stdout.frame(b"all that I know")
    await server.stdout.send(END)
    loop = asyncio.get_running_loop()
    assert await soon(loop.sock_recv(client, 100)) == b"all that I know"
    client.shutdown(socket.SHUT_WR)
    await is_reset(client)  # or an end, which had been sent before it
    assert await server.stdout.closed()


async def test_so_many_at_once_and_the_next_is_reset(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    clients = [await dial(inside, 8080) for _ in range(MOST)]
    servers = [await soon(guest.taken.get()) for _ in clients]
    with capture_logs() as lines:
        assert await is_turned_away(inside, 8080)
        assert await is_turned_away(inside, 8080)
    assert [str(line["event"]) for line in lines] == [f"{MOST} connections to localhost at once: no more for now"]
    assert guest.asked == MOST
    clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    clients[0].close()
    assert await servers[0].stdout.closed()
    clients[0] = await served(inside, guest)
    for client in clients:
        client.close()


async def served(inside: Place, guest: FakeGuest) -> socket.socket:
    """A client that there is room for, once what has ended is cleared away."""
    while True:
        try:
            client = await dial(inside, 8080)
        except ConnectionResetError:
            continue
        asked = asyncio.create_task(guest.taken.get())
        turned_away = asyncio.create_task(asyncio.get_running_loop().sock_recv(client, 1))
        await soon(asyncio.wait((asked, turned_away), return_when=asyncio.FIRST_COMPLETED))
        if asked.done():
            turned_away.cancel()
            await asyncio.gather(turned_away, return_exceptions=True)
            return client
        asked.cancel()
        await asyncio.gather(asked, turned_away, return_exceptions=True)
        client.close()


async def test_a_hundred_one_after_the_other(forwarding: Forwarding, inside: Place, guest: FakeGuest) -> None:
    for number in range(100):
        client = await served(inside, guest)
        server = guest.all[-1]
        client.sendall(str(number).encode())
        client.shutdown(socket.SHUT_WR)
        assert await server.stdin.receive() == str(number).encode()
        server.stdin.theirs.close()
        await server.stdout.send(END)
        assert await receive(client) == b""
        client.close()
        server.close()
        guest.all.remove(server)


async def test_the_end_of_it_ends_all_also_what_the_guest_has_not_answered(
    inside: Place, guest: FakeGuest, log: Logger
) -> None:
    with same_fds():
        forwarding = await Forwarding.open(inside.fd, guest.connect, log)
        unanswered = await dial(inside, 2)
        carried = await dial(inside, 8080)
        server = await soon(guest.taken.get())
        await forwarding.close()
        await forwarding.close()
        assert await is_reset(unanswered)
        assert await is_reset(carried)
        assert await server.stdin.closed()
        assert await server.stdout.closed()
        with pytest.raises(ConnectionRefusedError):
            await dial(inside, 8080)
        server.close()


async def test_a_guest_that_fails_half_way_leaves_nothing(inside: Place, log: Logger) -> None:
    async def connect(_address: str, _port: int, streams: Streams) -> None:
        streams.connect("stdin", pair.ours)
        raise GuestError(Code.DEADLINE_EXCEEDED, "the guest did not answer within 15 s")

    with same_fds():
        pair = Pair()
        forwarding = await Forwarding.open(inside.fd, connect, log)
        assert await is_turned_away(inside, 8080)
        assert await pair.closed()
        await forwarding.close()
        pair.close()


async def test_a_kernel_that_does_not_let_us_is_one_warning(
    inside: Place, guest: FakeGuest, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> lookup.Lookup:
        raise HostError("bpf(2) does not load the program: Operation not permitted", hint="let it")

    monkeypatch.setattr(lookup, "take_over", refuse)
    with capture_logs() as lines:
        forwarding = await Forwarding.open(inside.fd, guest.connect, log)
        await forwarding.close()
    assert [line["log_level"] for line in lines] == ["warning"]
    assert lines[0]["error"] == "bpf(2) does not load the program: Operation not permitted (let it)"
    with pytest.raises(ConnectionRefusedError):
        await dial(inside, 8080)


async def test_its_listeners_are_closed_once_nobody_waits_at_them(guest: FakeGuest, log: Logger) -> None:
    """The loop would take whoever comes by the number of one for that, and stop watching it."""
    left: list[int] = []

    class Watched(lookup.Lookup):
        def close(self) -> None:
            left.append(sum(task.get_name() == "accept for the guest" for task in asyncio.all_tasks()))
            super().close()

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    forwarding = Forwarding(Watched([listener], -1), guest.connect, log)
    await asyncio.sleep(0)
    await forwarding.close()
    assert left == [0]
    assert listener.fileno() < 0
