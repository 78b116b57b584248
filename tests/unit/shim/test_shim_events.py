"""Events reach containerd in order and across its restarts. The other end is a real ttrpc server on a real socket."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import events_pb2
from api.events_service_pb2 import ForwardRequest
from api.events_service_ttrpc import EventsBase
from shim import deadlines, events
from shim.events import Publisher
from shim.log import Logger, open_log
from tests.unit.shim.observe import same_fds
from ttrpc import Code, Context, Server, StatusError


class Containerd(EventsBase):
    """Takes events at a socket; `refusals` are answered first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: asyncio.Queue[ForwardRequest] = asyncio.Queue()
        self.refusals: list[StatusError] = []
        self.refuses: Callable[[ForwardRequest], bool] = lambda _request: False
        self.stuck = False
        self._server = Server([self])
        self._serving: asyncio.Task[None] | None = None

    async def Forward(self, request: ForwardRequest, context: Context) -> Empty:
        if self.stuck:
            await asyncio.Event().wait()
        if self.refusals:
            raise self.refusals.pop()
        if self.refuses(request):
            raise StatusError(Code.INVALID_ARGUMENT, "never")
        self.received.put_nowait(request)
        return Empty()

    def begin(self) -> None:
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.setblocking(False)
        listener.bind(str(self.path))
        listener.listen()
        self._server = Server([self])
        self._serving = asyncio.create_task(self._server.serve_listener(listener))

    async def end(self) -> None:
        await self._server.close(0)
        if self._serving is not None:
            await self._serving

    async def next(self) -> ForwardRequest:
        return await asyncio.wait_for(self.received.get(), 20)


@pytest.fixture
async def containerd(tmp_path: Path) -> AsyncIterator[Containerd]:
    server = Containerd(tmp_path / "ttrpc.sock")
    server.begin()
    yield server
    await server.end()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logger]:
    """Into a file: the tests read it."""
    (tmp_path / "log").touch()
    log = open_log(tmp_path / "log", level="debug", namespace="ns", container_id="c")
    log.info("open from now on")
    yield log
    structlog.reset_defaults()


def _event(number: int) -> events_pb2.TaskStart:
    return events_pb2.TaskStart(container_id="c", pid=number)


def _number(request: ForwardRequest) -> int:
    return events_pb2.TaskStart.FromString(request.envelope.event.value).pid


async def test_the_envelope(containerd: Containerd, log: Logger) -> None:
    publisher = Publisher(f"unix://{containerd.path}", "ns", log)
    before = time.time_ns()
    publisher.publish(events_pb2.TaskExit(container_id="c", id="c", pid=5, exit_status=137))
    envelope = (await containerd.next()).envelope
    assert (envelope.namespace, envelope.topic) == ("ns", "/tasks/exit")
    assert before <= envelope.timestamp.ToNanoseconds() <= time.time_ns()
    # containerd's typeurl.Is does not match a URL with a host in front.
    assert envelope.event.type_url == "containerd.events.TaskExit"
    assert events_pb2.TaskExit.FromString(envelope.event.value).exit_status == 137
    await publisher.close()


async def test_every_event_has_its_topic(containerd: Containerd, log: Logger) -> None:
    publisher = Publisher(str(containerd.path), "ns", log)
    kinds: dict[type[Message], str] = {
        events_pb2.TaskCreate: "/tasks/create",
        events_pb2.TaskStart: "/tasks/start",
        events_pb2.TaskExit: "/tasks/exit",
        events_pb2.TaskDelete: "/tasks/delete",
        events_pb2.TaskOOM: "/tasks/oom",
        events_pb2.TaskExecAdded: "/tasks/exec-added",
        events_pb2.TaskExecStarted: "/tasks/exec-started",
        events_pb2.TaskPaused: "/tasks/paused",
        events_pb2.TaskResumed: "/tasks/resumed",
    }
    for kind, topic in kinds.items():
        publisher.publish(kind())
        assert (await containerd.next()).envelope.topic == topic
    await publisher.close()


async def test_closing_delivers_what_is_queued_in_order(containerd: Containerd, log: Logger) -> None:
    with same_fds():
        publisher = Publisher(str(containerd.path), "ns", log)
        for number in range(100):
            publisher.publish(_event(number))
        await publisher.close()
        received = [_number(containerd.received.get_nowait()) for _ in range(containerd.received.qsize())]
        await containerd.end()
        containerd.begin()
    assert received == list(range(100))


async def test_a_restart_loses_no_event_and_no_order(containerd: Containerd, log: Logger) -> None:
    publisher = Publisher(str(containerd.path), "ns", log)
    publisher.publish(_event(0))
    assert _number(await containerd.next()) == 0
    await containerd.end()
    for number in (1, 2, 3):
        publisher.publish(_event(number))
    containerd.begin()
    assert [_number(await containerd.next()) for _ in range(3)] == [1, 2, 3]
    await publisher.close()


async def test_after_a_restart_the_first_event_does_not_wait(
    containerd: Containerd, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_RETRY_PAUSE_S", 3600)
    publisher = Publisher(str(containerd.path), "ns", log)
    publisher.publish(_event(0))
    await containerd.next()
    await containerd.end()
    containerd.begin()
    publisher.publish(_event(1))
    assert _number(await containerd.next()) == 1
    await publisher.close()


async def test_a_refusal_is_tried_again(containerd: Containerd, log: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_RETRY_PAUSE_S", 0.001)
    containerd.refusals = [StatusError(Code.UNAVAILABLE, "not now")] * 3
    publisher = Publisher(str(containerd.path), "ns", log)
    publisher.publish(_event(1))
    publisher.publish(_event(2))
    assert [_number(await containerd.next()) for _ in range(2)] == [1, 2]
    await publisher.close()


async def test_what_is_refused_for_too_long_is_dropped_and_logged(
    containerd: Containerd, tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "EVENT_RETRY_S", 0.05)
    monkeypatch.setattr(events, "_RETRY_PAUSE_S", 0.001)
    containerd.refuses = lambda request: _number(request) == 1
    publisher = Publisher(str(containerd.path), "ns", log)
    publisher.publish(_event(1))
    publisher.publish(_event(2))
    assert _number(await containerd.next()) == 2
    await publisher.close()
    text = (tmp_path / "log").read_text()
    assert text.count("event dropped: containerd does not take it") == 1
    assert "topic=/tasks/start" in text


async def test_containerd_away_for_an_hour(
    containerd: Containerd, tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an exec each second: the queue is bounded, exits are kept, in order, and the log says what went."""
    monkeypatch.setattr(deadlines, "EVENT_RETRY_S", 0.0)  # being away is no refusal, however long
    monkeypatch.setattr(events, "_RETRY_PAUSE_S", 0.001)
    await containerd.end()
    publisher = Publisher(str(containerd.path), "ns", log)
    for number in range(3600):
        publisher.publish(events_pb2.TaskExecAdded(container_id="c", exec_id=f"e{number}"))
        publisher.publish(events_pb2.TaskExecStarted(container_id="c", exec_id=f"e{number}", pid=number))
        publisher.publish(events_pb2.TaskExit(container_id="c", id=f"e{number}", exit_status=number))
    assert len(publisher._queue) == events.QUEUE_LIMIT
    await asyncio.sleep(0.1)
    containerd.begin()
    received = [await containerd.next() for _ in range(events.QUEUE_LIMIT)]
    await publisher.close()
    assert containerd.received.empty()
    # The first was under way. All others are exits, the newest, in order.
    assert received[0].envelope.topic == "/tasks/exec-added"
    assert {each.envelope.topic for each in received[1:]} == {"/tasks/exit"}
    exits = [events_pb2.TaskExit.FromString(each.envelope.event.value).exit_status for each in received[1:]]
    assert exits == list(range(3600 - len(exits), 3600))
    text = (tmp_path / "log").read_text()
    assert text.count("events are dropped: containerd is away, and too many wait") == 1
    assert "3599 /tasks/exec-added" in text
    assert "3600 /tasks/exec-started" in text
    assert f"{3600 - len(exits)} /tasks/exit" in text


async def test_closing_has_a_deadline(
    containerd: Containerd, log: Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "EVENT_FLUSH_S", 0.1)
    containerd.stuck = True
    publisher = Publisher(str(containerd.path), "ns", log)
    for number in range(3):
        publisher.publish(_event(number))
    await asyncio.wait_for(publisher.close(), 10)
    assert 'msg="events not delivered" count=3' in (tmp_path / "log").read_text()


async def test_a_dial_that_hangs_has_a_deadline(tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket whose backlog is full: connecting to it waits (unix(7))."""
    monkeypatch.setattr(deadlines, "DIAL_S", 0.05)
    monkeypatch.setattr(deadlines, "EVENT_FLUSH_S", 0.5)
    monkeypatch.setattr(events, "_RETRY_PAUSE_S", 0.001)
    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        fds = os.listdir("/proc/self/fd")
        publisher = Publisher(path, "ns", log)
        publisher.publish(_event(1))
        await asyncio.wait_for(publisher.close(), 10)
        assert len(os.listdir("/proc/self/fd")) == len(fds)
    text = (tmp_path / "log").read_text()
    assert "event not delivered yet" in text
    assert 'msg="events not delivered" count=1' in text
