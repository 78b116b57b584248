"""The client against a server of grpclib's own: what goes over the wire, and what becomes of errors."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from google.protobuf import empty_pb2
from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from api import containerd_pb2 as api
from api import task_types_pb2
from shim.containerd.client import Client
from shim.errors import (
    AlreadyExistsError,
    HostError,
    MissingPartError,
    NotFoundError,
    QemuboxError,
    ResourceError,
    SpecError,
    StateError,
    UnsupportedError,
)

Answer = Callable[[Message], "Message | GRPCError"]


class Containerd:
    """Answers each call as the test says; knows what was asked, and with which metadata."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, Message, dict[str, str]]] = []
        self.blobs: dict[str, bytes] = {}
        self.written: list[api.WriteContentRequest] = []
        self.full_at = 1 << 60
        self.silent = asyncio.Event()

    def __mapping__(self) -> dict[str, Handler]:
        unary = {
            "containers.v1.Containers/Get": (api.GetContainerRequest, api.GetContainerResponse),
            "containers.v1.Containers/List": (api.ListContainersRequest, api.ListContainersResponse),
            "tasks.v1.Tasks/Get": (api.GetTaskRequest, api.GetTaskResponse),
            "images.v1.Images/Create": (api.CreateImageRequest, api.CreateImageResponse),
            "images.v1.Images/Update": (api.UpdateImageRequest, api.UpdateImageResponse),
            "content.v1.Content/Info": (api.InfoRequest, api.InfoResponse),
            "content.v1.Content/Update": (api.UpdateContentRequest, api.UpdateContentResponse),
            "content.v1.Content/Abort": (api.AbortRequest, empty_pb2.Empty),
            "leases.v1.Leases/Create": (api.CreateLeaseRequest, api.CreateLeaseResponse),
            "leases.v1.Leases/Delete": (api.DeleteLeaseRequest, empty_pb2.Empty),
        }
        handlers = {
            f"/containerd.services.{name}": Handler(self._unary(name, reply), Cardinality.UNARY_UNARY, request, reply)
            for name, (request, reply) in unary.items()
        }
        handlers["/containerd.services.content.v1.Content/Read"] = Handler(
            self._read, Cardinality.UNARY_STREAM, api.ReadContentRequest, api.ReadContentResponse
        )
        handlers["/containerd.services.content.v1.Content/Write"] = Handler(
            self._write, Cardinality.STREAM_STREAM, api.WriteContentRequest, api.WriteContentResponse
        )
        return handlers

    def _unary(self, name: str, reply: type[Message]) -> Callable[[Stream[Message, Message]], Awaitable[None]]:
        async def handle(stream: Stream[Message, Message]) -> None:
            request = await stream.recv_message()
            assert request is not None
            metadata = {key: str(value) for key, value in (stream.metadata or {}).items()}
            self.asked.append((name, request, metadata))
            answer = self.answers[name](request) if name in self.answers else reply()
            if isinstance(answer, GRPCError):
                raise answer
            await stream.send_message(answer)

        return handle

    async def _read(self, stream: Stream[api.ReadContentRequest, api.ReadContentResponse]) -> None:
        request = await stream.recv_message()
        assert request is not None
        if request.digest not in self.blobs:
            raise GRPCError(Status.NOT_FOUND, "content not found")
        blob = self.blobs[request.digest]
        for offset in range(0, len(blob), 1000):
            await stream.send_message(api.ReadContentResponse(offset=offset, data=blob[offset : offset + 1000]))

    async def _write(self, stream: Stream[api.WriteContentRequest, api.WriteContentResponse]) -> None:
        data = b""
        async for request in stream:
            self.written.append(request)
            data += request.data
            if len(data) > self.full_at:
                raise GRPCError(Status.UNKNOWN, "no space left on device")
            if request.action == api.COMMIT:
                if request.expected in self.blobs:
                    raise GRPCError(Status.ALREADY_EXISTS, "content exists")
                self.blobs[request.expected] = data
            await stream.send_message(api.WriteContentResponse(action=request.action, offset=len(data)))


@pytest.fixture
async def containerd(tmp_path: Path) -> AsyncIterator[Containerd]:
    made = Containerd()
    server = Server([made])
    await server.start(path=str(tmp_path / "socket"))
    yield made
    made.silent.set()
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client(containerd: Containerd, tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(tmp_path / "socket", "ns") as made:
        yield made


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def test_a_call_is_in_its_namespace(containerd: Containerd, client: Client) -> None:
    containerd.answers["containers.v1.Containers/Get"] = lambda _: api.GetContainerResponse(
        container=api.Container(id="c", snapshotter="overlayfs")
    )
    assert (await client.container("c")).snapshotter == "overlayfs"
    ((_, request, metadata),) = containerd.asked
    assert request == api.GetContainerRequest(id="c")
    assert metadata["containerd-namespace"] == "ns"
    assert "containerd-lease" not in metadata


async def test_a_container_has_a_name_and_the_beginning_of_its_id(containerd: Containerd, client: Client) -> None:
    containerd.answers["containers.v1.Containers/Get"] = lambda _: GRPCError(Status.NOT_FOUND, "not found")
    found: dict[str, list[str]] = {'labels."nerdctl/name"=="web.1"': ["abcdef"], 'id~="^abc[.]"': ["abc.1", "abc.2"]}

    def listed(request: Message) -> Message:
        assert isinstance(request, api.ListContainersRequest)
        ids = found.get(request.filters[0], [])
        return api.ListContainersResponse(containers=[api.Container(id=each) for each in ids])

    containerd.answers["containers.v1.Containers/List"] = listed
    assert (await client.container("web.1")).id == "abcdef"
    with pytest.raises(SpecError, match=r"abc\. is more than one container: abc\.1, abc\.2"):
        await client.container("abc.")
    for nothing in ("abd", "none", 'a"b', ""):
        with pytest.raises(NotFoundError, match=f"^container {nothing}: not found$"):
            await client.container(nothing)


async def test_what_is_made_belongs_to_the_lease_and_it_ends(containerd: Containerd, client: Client) -> None:
    async with client.lease() as lease:
        await client.put_image("name", api.Descriptor(digest="d"))
    await client.put_image("name", api.Descriptor(digest="d"))
    leases = [metadata.get("containerd-lease") for _, _, metadata in containerd.asked]
    assert leases == [None, lease, None, None]
    created, deleted = containerd.asked[0][1], containerd.asked[2][1]
    assert isinstance(created, api.CreateLeaseRequest)
    assert created.id == lease
    assert created.labels["containerd.io/gc.expire"].endswith("Z")
    assert deleted == api.DeleteLeaseRequest(id=lease)


async def test_after_an_error_containerd_collects_at_once(containerd: Containerd, client: Client) -> None:
    with pytest.raises(RuntimeError):
        async with client.lease() as lease:
            raise RuntimeError
    assert containerd.asked[-1][1] == api.DeleteLeaseRequest(id=lease, sync=True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.NOT_FOUND, NotFoundError),
        (Status.ALREADY_EXISTS, AlreadyExistsError),
        (Status.FAILED_PRECONDITION, StateError),
        (Status.UNIMPLEMENTED, UnsupportedError),
        (Status.RESOURCE_EXHAUSTED, ResourceError),
        (Status.UNKNOWN, HostError),
        (Status.INTERNAL, HostError),
    ],
)
async def test_an_error_is_one_sentence_that_names_what_was_asked(
    containerd: Containerd, client: Client, status: Status, error: type[QemuboxError]
) -> None:
    containerd.answers["containers.v1.Containers/Get"] = lambda _: GRPCError(status, "that is why")
    with pytest.raises(error) as raised:
        await client.container("c1")
    assert str(raised.value) == "container c1: that is why"


async def test_nobody_listens(tmp_path: Path) -> None:
    async with Client(tmp_path / "nothing", "ns") as client:
        with pytest.raises(MissingPartError, match=r"nothing: No such file .*is containerd running"):
            await client.container("c1")


async def test_nobody_answers(tmp_path: Path) -> None:
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(lambda _reader, writer: writers.append(writer), tmp_path / "socket")
    async with server, Client(tmp_path / "socket", "ns") as client:
        with pytest.raises(HostError, match=r"^container c1: containerd has not answered within 0\.2 s$"):
            await client._connection.call(
                "containers.v1.Containers/Get",
                api.GetContainerRequest(),
                api.GetContainerResponse,
                "container c1",
                deadline_s=0.2,
            )
    await _close(writers)


async def test_the_connection_ends(tmp_path: Path) -> None:
    writers: list[asyncio.StreamWriter] = []

    def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        writers.append(writer)

    server = await asyncio.start_unix_server(end, tmp_path / "socket")
    async with server, Client(tmp_path / "socket", "ns") as client:
        with pytest.raises(QemuboxError, match="c1"):
            await client.container("c1")
    await _close(writers)


async def _close(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def test_no_task_is_no_state(containerd: Containerd, client: Client) -> None:
    containerd.answers["tasks.v1.Tasks/Get"] = lambda _: api.GetTaskResponse(
        process=api.Process(status=task_types_pb2.PAUSED)
    )
    assert await client.status("c") == task_types_pb2.PAUSED
    containerd.answers["tasks.v1.Tasks/Get"] = lambda _: GRPCError(Status.NOT_FOUND, "no running task found")
    assert await client.status("c") is None


async def test_a_name_is_moved_or_made(containerd: Containerd, client: Client) -> None:
    await client.put_image("name", api.Descriptor(digest="d"))
    ((_, update, _),) = containerd.asked
    assert isinstance(update, api.UpdateImageRequest)
    assert list(update.update_mask.paths) == ["target"]
    containerd.answers["images.v1.Images/Update"] = lambda _: GRPCError(Status.NOT_FOUND, "no such image")
    await client.put_image("name", api.Descriptor(digest="d"))
    assert containerd.asked[-1][0] == "images.v1.Images/Create"


async def test_a_blob_is_read_whole_and_checked(containerd: Containerd, client: Client) -> None:
    blob = b"x" * 5500
    containerd.blobs[_digest(blob)] = blob
    assert await client.content.read(_digest(blob), 5500) == blob
    with pytest.raises(UnsupportedError, match="more than 5499 bytes"):
        await client.content.read(_digest(blob), 5499)
    containerd.blobs[_digest(blob)] = b"y"
    with pytest.raises(HostError, match="damaged"):
        await client.content.read(_digest(blob), 5500)
    with pytest.raises(NotFoundError, match="sha256:none: content not found"):
        await client.content.read("sha256:none", 10)
    assert await client.content.info("sha256:none") is not None
    containerd.answers["content.v1.Content/Info"] = lambda _: GRPCError(Status.NOT_FOUND, "none")
    assert await client.content.info("sha256:none") is None


async def test_a_blob_is_written_in_pieces(containerd: Containerd, client: Client) -> None:
    pieces = [b"a" * (1 << 20), b"b" * (1 << 20), b"c"]
    async with client.content.writer("ref") as writer:
        for piece in pieces:
            await writer.write(piece)
        await writer.commit(_digest(b"".join(pieces)), {"label": "value"})
    assert containerd.blobs == {_digest(b"".join(pieces)): b"".join(pieces)}
    last = containerd.written[-1]
    assert (last.ref, last.total, dict(last.labels)) == ("ref", (2 << 20) + 1, {"label": "value"})
    assert not [name for name, _, _ in containerd.asked if name.endswith("Abort")]


async def test_a_blob_that_is_there_gets_its_labels(containerd: Containerd, client: Client) -> None:
    for _ in range(2):
        assert await client.content.put("ref", b"blob", {"label": "value"}) == _digest(b"blob")
    update = containerd.asked[-1][1]
    assert isinstance(update, api.UpdateContentRequest)
    assert list(update.update_mask.paths) == ["labels.label"]
    assert not [name for name, _, _ in containerd.asked if name.endswith("Abort")]


async def test_a_full_disk_is_told_and_the_write_given_up(containerd: Containerd, client: Client) -> None:
    containerd.full_at = 1500

    async def write() -> None:
        async with client.content.writer("ref") as writer:
            await writer.write(bytes(1000))
            await writer.write(bytes(1000))

    with pytest.raises(HostError, match="write ref: no space left on device"):
        await write()
    assert containerd.asked[-1][1] == api.AbortRequest(ref="ref")
    assert containerd.blobs == {}


async def test_a_write_that_is_left_is_given_up(containerd: Containerd, client: Client) -> None:

    async def write() -> None:
        async with client.content.writer("ref") as writer:
            await writer.write(b"x")
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await write()
    assert containerd.asked[-1][1] == api.AbortRequest(ref="ref")
    assert await client.content.info("x") is not None  # the connection is of use as before
