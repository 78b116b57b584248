"""A server and its clients over real socket pairs, and raw peers that speak frames by hand."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.wrappers_pb2 import StringValue

from ttrpc import Client, Context, Method, Server, Service, StatusError
from ttrpc.frame import Decoder, Frame, FrameType, Oversized, encode
from ttrpc.messages import decode_response, encode_reply, encode_request
from ttrpc.service import ClientStreaming, ServerStreaming, Unary

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

    async def ask(self, stream_id: int, value: str) -> None:
        """A good call, to see that the connection still works."""
        payload = StringValue(value=value).SerializeToString()
        await self.send(stream_id, FrameType.REQUEST, 0, encode_request("/test.Service/Echo", payload, None, None))
        assert await self.reply(stream_id) == value

    async def reply(self, stream_id: int) -> str:
        """The text in the next frame, which must be a good Response of that stream."""
        frame = await self.receive()
        assert frame is not None
        assert (frame.stream_id, frame.type, frame.flags) == (stream_id, FrameType.RESPONSE, 0)
        return StringValue.FromString(decode_response(frame.data)).value

    async def refusal(self, stream_id: int) -> StatusError:
        """The status in the next frame, which must be a Response of that stream."""
        with pytest.raises(StatusError) as caught:
            await self.reply(stream_id)
        return caught.value

    async def next_id(self) -> int:
        """The stream of the next frame, which must be a Request."""
        frame = await self.receive()
        assert frame is not None
        assert frame.type == FrameType.REQUEST
        return frame.stream_id

    async def works(self, client: Client) -> None:
        """Answers a good call, to see that the connection still works; passes over what is no Request."""
        task = asyncio.create_task(client.call("/a.B/C", Empty(), StringValue))
        frame = await self.receive()
        while frame is not None and frame.type != FrameType.REQUEST:
            frame = await self.receive()
        assert frame is not None
        fine = StringValue(value="fine")
        await self.send(frame.stream_id, FrameType.RESPONSE, 0, encode_reply(fine.SerializeToString()))
        assert await task == fine


async def echo(request: StringValue, _context: Context) -> StringValue:
    return request


async def join(requests: AsyncIterator[StringValue], _context: Context) -> StringValue:
    return StringValue(value="+".join([request.value async for request in requests]))


async def thrice(request: StringValue, _context: Context) -> AsyncIterator[StringValue]:
    for _ in range(3):
        yield request


ECHO: Mapping[str, Method] = {
    "Echo": Unary(StringValue, echo),
    "Join": ClientStreaming(StringValue, join),
    "Thrice": ServerStreaming(StringValue, thrice),
}


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
    """Makes raw clients of a server with these methods, and Echo, Join and Thrice."""
    peers: list[RawPeer] = []
    tasks: list[asyncio.Task[None]] = []

    def make(methods: Mapping[str, Method]) -> RawPeer:
        ours, theirs = sockets()
        tasks.append(asyncio.create_task(server({**ECHO, **methods}).serve(theirs)))
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
