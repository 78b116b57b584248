"""A hostile guest: whatever it answers, every call of containerd's ends in time, and every exit is a valid event."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import structlog
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from api import events_pb2, guest_pb2, task_pb2
from shim import deadlines
from shim.guest import ANSWER_LIMIT
from shim.log import Logger, open_log
from shim.untrusted import TEXT_LIMIT
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.exec_calls import exec_request
from tests.unit.shim.task.rogue import Answer, RogueWorld, polite, raw, response
from tests.unit.shim.task.service_world import Shim
from ttrpc import Code, StatusError
from ttrpc.frame import MAX_DATA, FrameType
from ttrpc.request_pb2 import Response, Status

# In these tests nothing is slow.
_SHORT_S = 0.05
_CALL_S = 10.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rogue")


@pytest.fixture(scope="module")
def rogue_log(directory: Path) -> Iterator[Logger]:
    (directory / "log").touch()
    yield open_log(directory / "log", level="debug", namespace="ns", container_id="c")
    structlog.reset_defaults()


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GUEST_CRUN_S", "GUEST_CALL_S", "GUEST_KILL_S", "GUEST_PAUSE_S", "GUEST_STATS_S", "LAST_WORDS_S"):
            patch.setattr(deadlines, name, _SHORT_S)
        patch.setattr(deadlines, "KILLED_S", 0.3)
        yield


def _calls(shim: Shim) -> list[Callable[[], Awaitable[Message]]]:
    """What containerd may ask of a container that runs, in some order."""
    task = shim.task
    return [
        lambda: task.Start(task_pb2.StartRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.Exec(exec_request(), timeout_s=_CALL_S),
        lambda: task.Start(task_pb2.StartRequest(id="c", exec_id="e"), timeout_s=_CALL_S),
        lambda: task.Stats(task_pb2.StatsRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.Pids(task_pb2.PidsRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.ResizePty(task_pb2.ResizePtyRequest(id="c", width=80, height=25), timeout_s=_CALL_S),
        lambda: task.Pause(task_pb2.PauseRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.Resume(task_pb2.ResumeRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.State(task_pb2.StateRequest(id="c"), timeout_s=_CALL_S),
        lambda: task.Kill(task_pb2.KillRequest(id="c", exec_id="e", signal=9), timeout_s=_CALL_S),
        lambda: task.Kill(task_pb2.KillRequest(id="c", signal=15, all=True), timeout_s=_CALL_S),
        lambda: task.Kill(task_pb2.KillRequest(id="c", signal=9), timeout_s=_CALL_S),
    ]


async def _life(log: Logger, answer: Answer) -> list[StatusError]:
    """A container's whole life with such a guest; what was refused. Fails where containerd would be left waiting."""
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    shim = Shim(log)
    shim.made.new_world = functools.partial(RogueWorld, answer=answer)
    before_ns = time.time_ns()
    refusals: list[StatusError] = []
    try:
        await shim.create()
        waiting = asyncio.create_task(shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=_CALL_S))
        for call in _calls(shim):
            try:
                await call()
            except StatusError as error:
                refusals.append(error)
        end = await waiting  # at the latest because the machine was ended after SIGKILL
        assert end.exit_status <= 255
        assert before_ns <= end.exited_at.ToNanoseconds() <= time.time_ns()
        await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=_CALL_S)
        assert shim.made.undone == ["c"]
        exits = [event for event in shim.told.events if isinstance(event, events_pb2.TaskExit) and event.id == "c"]
        assert [(each.exit_status, each.exited_at) for each in exits] == [(end.exit_status, end.exited_at)]
        for event in shim.told.events:
            assert len(event.SerializeToString()) < 1000
    finally:
        await shim.close()
    assert [error for error in refusals if error.code in (Code.DEADLINE_EXCEEDED, Code.INTERNAL) and _own(error)] == []
    assert complaints == []
    return refusals


def _own(error: StatusError) -> bool:
    """Whether an error is not a clear one: the test's own deadline, or an exception that nobody meant."""
    return error.message.startswith("/containerd.task") or "Error: " in error.message.partition(" ")[0]


def _check_log(directory: Path, seen: int = 0) -> int:
    text = (directory / "log").read_bytes()[seen:].decode()
    for line in text.splitlines():
        assert line.isprintable(), line
        assert len(line) < 3 * TEXT_LIMIT
    assert "Traceback" not in text
    assert "call failed unexpectedly" not in text
    return seen + len(text.encode())


def _always(make: Callable[[int], Sequence[bytes | None]]) -> Answer:
    """The same for every call."""
    return lambda _method, stream: make(stream)


def _then_polite(make: Callable[[int], Sequence[bytes | None]]) -> Answer:
    """That, and then what is right."""
    return lambda method, stream: [*make(stream), *polite(method, stream)]


def _status(stream: int, code: int, text: str) -> bytes:
    return raw(stream, FrameType.RESPONSE, Response(status=Status(code=code, message=text)).SerializeToString())


_ANSWERS: dict[str, Answer] = {
    "nothing": _always(lambda stream: []),
    "polite, and no end after SIGKILL": polite,
    "garbage": _always(lambda stream: [raw(stream, FrameType.RESPONSE, b"\xff" * 100)]),
    "no message of the type": _always(
        lambda stream: [raw(stream, FrameType.RESPONSE, Response(payload=b"\xff" * 9).SerializeToString())]
    ),
    "a request": _always(lambda stream: [raw(stream, FrameType.REQUEST, b"")]),
    "data": _always(lambda stream: [raw(stream, FrameType.DATA, b"x")]),
    "a type to come": _always(lambda stream: [raw(stream, 77, b"x")]),
    "of other streams": _then_polite(
        lambda stream: [raw(other, FrameType.RESPONSE, b"x" * 50) for other in (0, 2, stream + 2, 2**32 - 1)]
    ),
    "twice": lambda method, stream: [*polite(method, stream), *polite(method, stream)],
    "more than 4 MiB": _always(
        lambda stream: [raw(stream, FrameType.RESPONSE, bytes(MAX_DATA + 1))],
    ),
    "more than an answer may have": _always(
        lambda stream: [raw(stream, FrameType.RESPONSE, Response(payload=bytes(ANSWER_LIMIT)).SerializeToString())],
    ),
    "a frame that does not end": _always(lambda stream: [raw(stream, FrameType.RESPONSE, b"x", length=MAX_DATA)]),
    "no ttrpc": _always(lambda stream: [b"HTTP/1.1 200 OK\r\n\r\n"]),
    "the end": _always(lambda stream: [None]),
    "half a frame and the end": _always(lambda stream: [raw(stream, 2, b"x", length=99), None]),
    "an error of many words": _always(lambda stream: [_status(stream, 13, "\x1b[2J\nx" * 30_000)]),
    "a status that is none": _always(lambda stream: [_status(stream, -7, "")]),
    "it is gone": _always(lambda stream: [_status(stream, Code.NOT_FOUND, "no such container")]),
    "it took too long": _always(lambda stream: [_status(stream, Code.DEADLINE_EXCEEDED, "later")]),
    "cancelled": _always(lambda stream: [_status(stream, Code.CANCELLED, "no")]),
}


@pytest.mark.parametrize("kind", _ANSWERS)
def test_whatever_is_answered(kind: str, rogue_log: Logger, directory: Path) -> None:
    seen = (directory / "log").stat().st_size
    refusals = asyncio.run(asyncio.wait_for(_life(rogue_log, _ANSWERS[kind]), 60))
    for refusal in refusals:
        assert refusal.message.isprintable()
        assert len(refusal.message) < 2 * TEXT_LIMIT
    _check_log(directory, seen)


def _timestamps() -> st.SearchStrategy[Timestamp]:
    return st.builds(Timestamp, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))


def _messages() -> st.SearchStrategy[Message]:
    """Answers of the right types whose values are anything."""
    uint32, uint64, int64 = (st.integers(*bounds) for bounds in ((0, 2**32 - 1), (0, 2**64 - 1), (-(2**63), 2**63 - 1)))
    milestone = st.builds(guest_pb2.Milestone, name=st.text(max_size=200), boottime_ns=int64)
    files = st.dictionaries(
        st.sampled_from(("cpu.stat", "memory.stat", "memory.max", "io.stat", "cpu.pressure", "pids.max", "../../x")),
        st.binary(max_size=300) | st.text("0123456789 \n=:max", max_size=300).map(str.encode),
    )
    return st.one_of(
        st.builds(guest_pb2.WaitResponse, exit_status=uint32, exited_at=_timestamps(), oom_kills=uint64),
        st.builds(guest_pb2.StartResponse, pid=uint32, milestones=st.lists(milestone, max_size=100), boottime_ns=int64),
        st.builds(guest_pb2.StatsResponse, files=files),
        st.builds(guest_pb2.OomKillsResponse, kills=uint64),
    )


def _answer_bytes() -> st.SearchStrategy[Callable[[int], bytes]]:
    def as_message(message: Message) -> Callable[[int], bytes]:
        return lambda stream: response(stream, message)

    def as_frame(parts: tuple[int, bytes]) -> Callable[[int], bytes]:
        return lambda stream: raw(stream, *parts)

    return st.one_of(_messages().map(as_message), st.tuples(st.integers(0, 255), st.binary(max_size=200)).map(as_frame))


@settings(max_examples=30, deadline=None)
@given(st.lists(_answer_bytes(), min_size=1, max_size=15))
def test_any_answers_at_all(rogue_log: Logger, directory: Path, answers: list[Callable[[int], bytes]]) -> None:
    turn = iter(range(10**6))

    def answer(_method: str, stream: int) -> Sequence[bytes | None]:
        return [answers[next(turn) % len(answers)](stream)]

    seen = (directory / "log").stat().st_size
    asyncio.run(asyncio.wait_for(_life(rogue_log, answer), 60))
    _check_log(directory, seen)


@pytest.mark.parametrize(("said", "told"), [(0, 0), (255, 255), (256, 255), (2**32 - 1, 255)])
def test_exit_statuses(rogue_log: Logger, said: int, told: int) -> None:
    """None of a guest's failures becomes a success on the way through exit(3)."""
    hostile = guest_pb2.WaitResponse(exit_status=said, exited_at=Timestamp(seconds=2**62, nanos=-5))

    async def life() -> int:
        world = RogueWorld(
            rogue_log,
            lambda method, stream: [response(stream, hostile)] if method == "Wait" else polite(method, stream),
        )
        world.watch()
        await world.start()
        end = await world.wait()
        await world.close()
        return end.status

    assert asyncio.run(life()) == told


def test_a_flood_of_frames_leaves_the_others_their_turn(rogue_log: Logger) -> None:
    """Half a million frames for streams that never were: calls are answered all the same."""

    async def flooded() -> float:
        world = RogueWorld(rogue_log, polite)
        flood = raw(2, FrameType.RESPONSE, b"") * 10_000
        flooding = asyncio.create_task(_repeat(world, flood))
        await asyncio.sleep(0.05)
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            await asyncio.sleep(0)
            slowest = max(slowest, time.monotonic() - began)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await world.close()
        return slowest

    assert asyncio.run(flooded()) < 0.5


async def _repeat(world: RogueWorld, data: bytes) -> None:
    for _ in range(50):
        await world.say(data)


def test_the_end_of_the_machine_ends_all(rogue_log: Logger) -> None:
    async def life() -> int:
        world = RogueWorld(rogue_log, polite)
        world.watch()
        await world.start()
        world.died.set_result(MachineExit(Cause.PANIC, 0, "no init"))
        status = (await world.wait()).status
        await world.close()
        return status

    assert asyncio.run(life()) == 137
