"""A server and its clients over real socket pairs, and raw peers that speak frames by hand."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import pytest

from ttrpc import Client, Method, Server, Service
from ttrpc.frame import Decoder, Frame, FrameType, Oversized, encode

DEADLINE_S = 10.0


class Methods(Service):
    """The service "test.Service" with these methods."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    def service_methods(self) -> Mapping[str, Method]:
        return {f"/test.Service/{name}": method for name, method in self._methods.items()}


class RawPeer:
    """The other end of a connection, without any of our client or server."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._decoder = Decoder()

    async def write(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.sock, data), DEADLINE_S)

    async def send(self, stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> None:
        await self.write(encode(stream_id, frame_type, flags, data))

    async def receive(self) -> Frame | None:
        """The next frame; None at the end of the connection."""
        while (item := self._decoder.next()) is None:
            try:
                data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 65536), DEADLINE_S)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._decoder.feed(data)
        assert not isinstance(item, Oversized)
        return item


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    """Fails a test after which the loop has seen an error that nobody handled, or a task goes on."""
    loop = asyncio.get_running_loop()
    errors: list[dict[str, object]] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=DEADLINE_S)
    assert [task for task in left if not task.done()] == []
    assert errors == []


@pytest.fixture
def reports() -> list[tuple[str, BaseException]]:
    """What the server told its `on_error`."""
    return []


@pytest.fixture
async def server(
    reports: list[tuple[str, BaseException]],
) -> AsyncIterator[Callable[[Mapping[str, Method]], Server]]:
    """Makes servers of one service, "test.Service"."""
    servers: list[Server] = []

    def make(methods: Mapping[str, Method]) -> Server:
        made = Server([Methods(methods)], on_error=lambda where, error: reports.append((where, error)))
        servers.append(made)
        return made

    yield make
    for made in servers:
        await asyncio.wait_for(made.close(0), DEADLINE_S)


@pytest.fixture
def sockets() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Makes connected pairs, closed at the end whoever owned them."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        pair = socket.socketpair()
        made.extend(pair)
        return pair

    yield make
    for sock in made:
        sock.close()


@pytest.fixture
async def connect(
    sockets: Callable[[], tuple[socket.socket, socket.socket]],
) -> AsyncIterator[Callable[[Server], Client]]:
    """Makes clients of a server."""
    clients: list[Client] = []
    tasks: list[asyncio.Task[None]] = []

    def make(to: Server) -> Client:
        ours, theirs = sockets()
        tasks.append(asyncio.create_task(to.serve(theirs)))
        clients.append(Client(ours))
        return clients[-1]

    yield make
    for client in clients:
        await asyncio.wait_for(client.close(), DEADLINE_S)
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_S)


@pytest.fixture
def serve(
    server: Callable[[Mapping[str, Method]], Server], connect: Callable[[Server], Client]
) -> Callable[[Mapping[str, Method]], Client]:
    """Makes a client of a server with these methods."""
    return lambda methods: connect(server(methods))


@pytest.fixture
async def raw_client(
    server: Callable[[Mapping[str, Method]], Server],
    sockets: Callable[[], tuple[socket.socket, socket.socket]],
) -> AsyncIterator[Callable[[Mapping[str, Method]], RawPeer]]:
    """Makes raw clients of a server with these methods."""
    peers: list[RawPeer] = []
    tasks: list[asyncio.Task[None]] = []

    def make(methods: Mapping[str, Method]) -> RawPeer:
        ours, theirs = sockets()
        tasks.append(asyncio.create_task(server(methods).serve(theirs)))
        peers.append(RawPeer(ours))
        return peers[-1]

    yield make
    for peer in peers:
        peer.sock.close()
    await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_S)


@pytest.fixture
async def raw_server(
    sockets: Callable[[], tuple[socket.socket, socket.socket]],
) -> AsyncIterator[Callable[[], tuple[Client, RawPeer]]]:
    """Makes clients whose server is a raw peer."""
    clients: list[Client] = []

    def make() -> tuple[Client, RawPeer]:
        ours, theirs = sockets()
        clients.append(Client(ours))
        return clients[-1], RawPeer(theirs)

    yield make
    for client in clients:
        await asyncio.wait_for(client.close(), DEADLINE_S)


@pytest.fixture
def soon() -> Callable[[Awaitable[object]], Awaitable[object]]:
    """Waits for something that must happen: a test fails by it instead of standing still."""
    return lambda what: asyncio.wait_for(what, DEADLINE_S)
