"""Connections to real TCP servers, carried over real socket pairs: the guest's half. Needs root."""

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TypeVar

import pytest

from api.frames import BROKEN, END, FrameReader, header
from tests.unit.shim.observe import until
from tests.unit.vminitd.dialled_host import DialledHost
from ttrpc import Code
from vminitd import deadlines
from vminitd.boot import loopback_up
from vminitd.errors import PortError, RequestError
from vminitd.forward import Forwarder
from vminitd.stdio import Wish

MIB = 1 << 20
STDIN, STDOUT = b"i" * 16, b"o" * 16
WISH = Wish(terminal=False, stdin=STDIN, stdout=STDOUT, stderr=b"")
RESET = struct.pack("ii", 1, 0)
_CLONE_NEWNET = 0x40000000
_Result = TypeVar("_Result")


async def soon(what: Awaitable[_Result]) -> _Result:
    return await asyncio.wait_for(what, 20)


class Far:
    """The host's ends of a connection, and the server's."""

    def __init__(self, host: DialledHost, listener: socket.socket) -> None:
        self.host = host
        self.listener = listener
        self.forwarder = Forwarder(host.dial)
        self.server = listener
        self.frames = FrameReader()

    @property
    def port(self) -> int:
        port = self.listener.getsockname()[1]
        assert isinstance(port, int)
        return port

    async def open(self, address: str = "127.0.0.1") -> None:
        """A connection that the server has accepted."""
        asked = asyncio.create_task(self.forwarder.forward(address, self.port, WISH))
        self.server, _ = await soon(asyncio.get_running_loop().sock_accept(self.listener))
        await soon(asked)

    async def send(self, data: bytes) -> None:
        """From the host: one frame."""
        await soon(self.host.write(STDIN, data, end=False))

    async def say(self, end: bytes) -> None:
        """From the host: the end of what it sends."""
        await soon(asyncio.get_running_loop().sock_sendall(self.host.connections[STDIN], end))

    async def receive(self) -> bytes:
        """At the host: all to the stream's end; then it closes."""
        got = bytearray()
        connection = self.host.connections[STDOUT]
        while not self.frames.ended:
            received = await soon(asyncio.get_running_loop().sock_recv(connection, MIB))
            assert received, "the stream has no end"
            for piece in self.frames.feed(memoryview(received)):
                got += piece
        connection.close()
        return bytes(got)

    async def hung_up(self, token: bytes) -> bool:
        return await soon(self.host.hung_up(token))

    async def served(self) -> bytes:
        """At the server: all that comes. Raises ConnectionResetError."""
        got = bytearray()
        while data := await soon(asyncio.get_running_loop().sock_recv(self.server, MIB)):
            got += data
        return bytes(got)

    def close(self) -> None:
        for sock in (self.server, self.listener, *self.host.connections.values()):
            sock.close()


def listening(address: str, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    listener = socket.create_server((address, 0), family=family)
    listener.setblocking(False)
    return listener


def reachable(address: str) -> bool:
    """Whether a program could have it as its own, and another find it there. IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one, contextlib.suppress(OSError):
        one.bind((address, 0))
        one.connect(one.getsockname())
        return True
    return False


@pytest.fixture(autouse=True)
def own_network() -> Iterator[None]:
    """A network namespace of the test's own, which this thread is in."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            loopback_up()
            for address in ("10.7.7.7", "fd00::7"):
                subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)
            # The kernel makes one of IPv6 usable a moment later (net/ipv6/addrconf.c, addrconf_dad_work).
            until(lambda: reachable("fd00::7"), "fd00::7")
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    before = sorted(os.listdir("/proc/self/fd"))
    far = Far(DialledHost(), listening("127.0.0.1"))
    yield far
    far.close()
    while left := [task for task in asyncio.all_tasks() if "port" in task.get_name()]:
        await soon(asyncio.wait(left))
    assert sorted(os.listdir("/proc/self/fd")) == before


async def test_both_ways_and_each_half_ends_by_itself(far: Far) -> None:
    await far.open()
    await far.send(b"the whole question")
    await far.say(END)
    assert await far.served() == b"the whole question"
    assert await far.hung_up(STDIN)
    far.server.sendall(b"the answer comes afterwards")
    far.server.shutdown(socket.SHUT_WR)
    assert await far.receive() == b"the answer comes afterwards"
    assert far.frames.whole


async def test_the_server_may_end_first(far: Far) -> None:
    await far.open()
    far.server.sendall(b"go away")
    far.server.shutdown(socket.SHUT_WR)
    assert await far.receive() == b"go away"
    assert far.frames.whole
    await far.send(b"but listen")
    await far.say(END)
    assert await far.served() == b"but listen"


async def test_8_mib_both_ways_at_once(far: Far) -> None:
    loop = asyncio.get_running_loop()
    data, other = os.urandom(8 * MIB), os.urandom(8 * MIB)
    await far.open()

    async def ask() -> None:
        for at in range(0, len(data), 200_000):
            piece = data[at : at + 200_000]
            await loop.sock_sendall(far.host.connections[STDIN], header(len(piece)) + piece)
        await far.say(END)

    async def answer() -> None:
        await loop.sock_sendall(far.server, other)
        far.server.shutdown(socket.SHUT_WR)

    asking, answering = asyncio.create_task(ask()), asyncio.create_task(answer())
    question, reply = await asyncio.gather(far.served(), far.receive())
    await soon(asyncio.gather(asking, answering))
    assert hashlib.sha256(question).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(reply).digest() == hashlib.sha256(other).digest()


async def test_who_does_not_read_stops_who_writes(far: Far) -> None:
    await far.open()
    sent = {"host": 0, "server": 0}

    async def flood(name: str, sock: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, header(4096) + bytes(4096))
            sent[name] += 4096

    floods = [
        asyncio.create_task(flood("host", far.host.connections[STDIN])),
        asyncio.create_task(flood("server", far.server)),
    ]
    await asyncio.wait(floods, timeout=0.5)
    assert not any(flood.done() for flood in floods)
    assert max(sent.values()) < 16 * MIB
    for task in floods:
        task.cancel()
    await asyncio.wait(floods)
    far.host.connections[STDOUT].close()  # and its machine, if not the server, hears of the end
    far.host.connections[STDIN].close()
    assert await is_reset(far.server)


async def is_reset(server: socket.socket) -> bool:
    """Whether what comes last is a reset."""
    try:
        while await soon(asyncio.get_running_loop().sock_recv(server, MIB)):
            pass
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("end", [BROKEN, b""])
async def test_a_host_that_has_no_more_to_give_is_a_reset_for_the_server(far: Far, end: bytes) -> None:
    await far.open()
    await far.send(b"half of i")
    assert await soon(asyncio.get_running_loop().sock_recv(far.server, 9)) == b"half of i"
    await far.say(end)
    far.host.connections[STDIN].close()
    assert await is_reset(far.server)
    assert await far.receive() == b""
    assert far.frames.broken


async def test_a_host_that_takes_no_more_is_a_reset_for_the_server(far: Far) -> None:
    await far.open()
    far.host.connections[STDOUT].close()
    far.server.sendall(b"to nobody")
    assert await is_reset(far.server)
    assert await far.hung_up(STDIN)


async def test_a_reset_by_the_server_is_told_as_that(far: Far) -> None:
    await far.open()
    far.server.sendall(b"half of i")
    await asyncio.sleep(0)
    assert await soon(asyncio.get_running_loop().sock_recv(far.host.connections[STDOUT], 13)) == b"\0\0\0\x09half of i"
    far.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    far.server.close()
    assert await far.receive() == b""
    assert far.frames.broken
    assert await far.hung_up(STDIN)


async def test_a_server_that_is_gone_when_more_comes_for_it(far: Far) -> None:
    """What it sent before still arrives; that the rest was not taken is known by the closed connection."""
    await far.open()
    far.server.sendall(b"all that I know")
    far.server.close()
    with contextlib.suppress(ConnectionError):
        while True:  # the first piece is answered by a reset, the next one finds it
            await soon(asyncio.get_running_loop().sock_sendall(far.host.connections[STDIN], header(1) + b"x"))
            await asyncio.sleep(0)
    assert await far.hung_up(STDIN)
    assert await far.receive() == b"all that I know"


async def test_a_port_where_nobody_listens(far: Far) -> None:
    port = far.port
    far.listener.close()
    with pytest.raises(PortError, match=rf"cannot connect to port {port} of 127.0.0.1: Connection refused") as caught:
        await soon(far.forwarder.forward("127.0.0.1", port, WISH))
    assert caught.value.code is Code.UNAVAILABLE
    assert far.host.connections == {}


async def test_localhost_is_also_where_only_ipv6_is_listened_to(far: Far) -> None:
    far.listener.close()
    far.listener = listening("::1", socket.AF_INET6)
    await far.open("127.0.0.1")
    assert far.server.family is socket.AF_INET6
    far.server.close()
    assert await far.receive() == b""


@pytest.mark.parametrize(("address", "family"), [("10.7.7.7", socket.AF_INET), ("fd00::7", socket.AF_INET6)])
async def test_localhost_is_also_where_only_another_address_is_listened_to(
    far: Far, address: str, family: socket.AddressFamily
) -> None:
    far.listener.close()
    far.listener = listening(address, family)
    await far.open("127.0.0.1")
    assert far.server.getsockname()[0] == address
    far.server.close()
    assert await far.receive() == b""


@pytest.mark.parametrize(("address", "family"), [("::1", socket.AF_INET6), ("127.9.9.9", socket.AF_INET)])
async def test_ipv6_and_other_addresses_of_the_machine(far: Far, address: str, family: socket.AddressFamily) -> None:
    far.listener.close()
    far.listener = listening(address, family)
    await far.open(address)
    assert far.server.getsockname()[0] == address
    far.server.close()
    assert await far.receive() == b""


async def test_what_cannot_be_dialled(far: Far) -> None:
    with pytest.raises(RequestError, match="is no IP address"):
        await far.forwarder.forward("localhost", 80, WISH)
    with pytest.raises(RequestError, match="there is no TCP port 0"):
        await far.forwarder.forward("127.0.0.1", 0, WISH)


@pytest.mark.parametrize(
    "wish",
    [
        Wish(terminal=True, stdin=STDIN, stdout=STDOUT, stderr=b""),
        Wish(terminal=False, stdin=b"", stdout=STDOUT, stderr=b""),
        Wish(terminal=False, stdin=STDIN, stdout=b"", stderr=b""),
        Wish(terminal=False, stdin=STDIN, stdout=STDOUT, stderr=STDOUT),
        Wish(terminal=False, stdin=b"short", stdout=STDOUT, stderr=b""),
    ],
)
async def test_what_are_no_streams_of_a_connection(far: Far, wish: Wish) -> None:
    with pytest.raises(RequestError):
        await far.forwarder.forward("127.0.0.1", far.port, wish)


async def test_a_port_that_does_not_answer_has_a_deadline(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its backlog is full: the kernel drops what knocks."""
    monkeypatch.setattr(deadlines, "FORWARD", 0.3)
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    port = full.getsockname()[1]
    waiting = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(3)]
    for knocking in waiting:
        assert knocking.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
    with pytest.raises(PortError, match=r"no answer within 0\.3 s"):
        await soon(far.forwarder.forward("127.0.0.1", port, WISH))
    for sock in (full, *waiting):
        sock.close()


@pytest.mark.parametrize("token", [STDIN, STDOUT])
async def test_a_host_that_refuses_a_stream_leaves_nothing(far: Far, token: bytes) -> None:
    far.host.refuse = token
    asked = asyncio.create_task(far.forwarder.forward("127.0.0.1", far.port, WISH))
    far.server, _ = await soon(asyncio.get_running_loop().sock_accept(far.listener))
    with pytest.raises(ConnectionRefusedError):
        await soon(asked)
    assert await is_reset(far.server)
