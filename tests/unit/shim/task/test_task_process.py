"""One process's life. vminitd is a stand-in behind a real ttrpc connection; it says when a process ends."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.frames import END, header
from shim import deadlines
from shim.errors import GuestError, MachineError, NotFoundError, StateError
from shim.log import Logger
from shim.task.process import Exit, Process
from shim.task.state import State
from shim.task.stdio import ProcessStreams
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.world import World, turns
from ttrpc import Code, StatusError


@pytest.fixture
async def world(log: Logger) -> AsyncIterator[World]:
    world = World(log)
    yield world
    await world.close()


async def test_an_ordinary_life(world: World) -> None:
    world.watch()
    assert world.process.state.name == "CREATED"
    waiters = [asyncio.create_task(world.wait()) for _ in range(3)]
    await world.start()
    assert world.process.state.name == "RUNNING"
    at_ns = time.time_ns()
    world.vminitd.end(42, at_ns)
    expected = Exit(42, at_ns)
    assert await asyncio.gather(*waiters) == [expected] * 3
    assert (world.exits, world.process.state, world.process.exit) == ([expected], State.STOPPED, expected)
    assert await world.wait() == expected


@pytest.mark.parametrize("at_ns", [-(10**18), 1, 10**18, 9 * 10**18])
async def test_whatever_the_guest_s_clock_says_the_end_is_after_the_start_and_not_to_come(
    world: World, at_ns: int
) -> None:
    world.watch()
    before_ns = time.time_ns()
    await world.start()
    world.vminitd.end(0, at_ns)
    assert before_ns <= (await world.wait()).at_ns <= time.time_ns()


async def test_the_exit_is_told_before_any_wait_is_answered(world: World) -> None:
    order: list[str] = []
    world.process.watch(lambda _end: order.append("event"))
    waiter = asyncio.create_task(world.wait())
    waiter.add_done_callback(lambda _task: order.append("wait"))
    await world.start()
    world.vminitd.end(0)
    await waiter
    await turns()
    assert order == ["event", "wait"]


async def test_the_exit_of_the_fastest_process_follows_its_start_event(world: World) -> None:
    world.watch()
    world.vminitd.end(0)
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(world.process.start())
    await world.vminitd.starting.wait()
    world.vminitd.may_start.set()
    await starting
    await turns()
    assert world.exits == []  # the start event is not out yet
    world.process.start_told()
    assert (await world.wait()).status == 0


async def test_a_start_that_fails_ends_all_the_same(world: World) -> None:
    world.watch()
    world.vminitd.start_error = StatusError(Code.NOT_FOUND, "no such file: /bin/x")
    with pytest.raises(GuestError, match="no such file"):
        await world.process.start()
    world.vminitd.end(127)
    assert (await world.wait()).status == 127


async def test_a_start_whose_caller_went_away_ends_all_the_same(world: World) -> None:
    """containerd restarts during Start: the handler is cancelled, and no start event follows."""
    world.watch()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(world.process.start())
    await world.vminitd.starting.wait()
    starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled()
    world.vminitd.end(3)
    assert (await world.wait()).status == 3
    assert [end.status for end in world.exits] == [3]


async def test_a_second_start_is_refused(world: World) -> None:
    world.watch()
    await world.start()
    with pytest.raises(StateError, match="cannot start container c: it is running"):
        await world.process.start()
    world.vminitd.end(0)
    await world.wait()
    with pytest.raises(StateError, match="cannot start container c: it is stopped"):
        await world.process.start()


async def test_one_killed_before_its_start_ends(world: World) -> None:
    world.watch()
    await world.process.kill(9, everyone=True)
    assert world.vminitd.kills == [(9, True)]
    world.vminitd.end(137)
    assert (await world.wait()).status == 137
    assert (len(world.exits), world.process.state) == (1, State.STOPPED)


async def test_a_signal_before_the_start_does_not_let_the_exit_overtake_it(world: World) -> None:
    world.watch()
    await world.process.kill(28, everyone=False)  # SIGWINCH ends nobody
    await world.process.start()
    world.vminitd.end(0)
    await turns()
    assert world.exits == []
    world.process.start_told()
    await world.wait()


async def test_kill_after_the_end_finds_nothing(world: World) -> None:
    world.watch()
    await world.start()
    world.vminitd.end(0)
    await world.wait()
    with pytest.raises(NotFoundError, match="process already finished"):
        await world.process.kill(9, everyone=False)
    assert world.vminitd.kills == []


@pytest.mark.parametrize("started", [True, False])
async def test_a_machine_that_is_gone_ends_its_processes(world: World, tmp_path: Path, started: bool) -> None:
    world.watch()
    if started:
        await world.start()
    world.died.set_result(MachineExit(Cause.PANIC, 0))
    assert (await world.wait()).status == 137
    assert len(world.exits) == 1
    assert "the guest's kernel panicked" in (tmp_path / "log").read_text()
    with pytest.raises(NotFoundError):
        await world.process.kill(9, everyone=False)


async def test_calls_to_a_machine_that_is_gone(world: World) -> None:
    world.died.set_result(MachineExit(Cause.QEMU, -9))
    with pytest.raises(MachineError):
        await world.process.start()
    with pytest.raises(MachineError):
        await world.process.kill(9, everyone=False)


async def test_the_end_waits_for_the_last_byte_of_output(world: World, tmp_path: Path) -> None:
    fifo = tmp_path / "stdout"
    os.mkfifo(fifo)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    world.process.streams = ProcessStreams(terminal=False, stdin="", stdout=str(fifo), stderr="")
    world.process.streams.connect("stdout", ours)
    world.watch()
    await world.start()
    data = os.urandom(100_000)
    theirs.sendall(header(len(data)) + data)
    world.vminitd.end(0)
    await turns()
    assert world.exits == []
    theirs.sendall(END)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.process.wait(), 0.05)  # the FIFO holds 65536 bytes; nobody has read any
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    got = b""
    while len(got) < len(data):
        try:
            got += os.read(reader, 65536)
        except BlockingIOError:
            await asyncio.sleep(0)
    assert (await world.wait()).status == 0
    assert got == data
    os.close(reader)
    theirs.close()


async def test_output_that_nobody_reads_has_a_deadline(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "DRAIN_S", 0.05)
    fifo = tmp_path / "stdout"
    os.mkfifo(fifo)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    world.process.streams = ProcessStreams(terminal=False, stdin="", stdout=str(fifo), stderr="")
    world.process.streams.connect("stdout", ours)
    world.watch()
    await world.start()
    world.vminitd.end(1)
    assert (await world.wait()).status == 1
    assert 'msg="output not read to its end"' in (tmp_path / "log").read_text()
    theirs.close()


async def test_output_that_was_lost_is_logged(world: World, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    world.process.streams = ProcessStreams(terminal=False, stdin="", stdout="/dev/full", stderr="")
    world.process.streams.connect("stdout", ours)
    world.watch()
    await world.start()
    theirs.sendall(header(1) + b"x" + END)
    world.vminitd.end(0)
    await world.wait()
    assert "output lost" in (tmp_path / "log").read_text()
    theirs.close()


async def test_whoever_waits_for_a_process_that_is_released_is_answered(world: World) -> None:
    """Deleted without ever having been started: its Wait must not hang in the shim for ever."""
    world.watch()
    waiter = asyncio.create_task(world.wait())
    await turns()
    world.process.move(State.DELETED)
    await world.process.release()
    assert (await waiter).status == 137
    assert world.exits == []
    with pytest.raises(NotFoundError):
        await world.process.kill(9, everyone=False)


async def test_an_exit_whose_event_fails_is_still_answered(world: World) -> None:
    loop_errors: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: loop_errors.append(context))

    def broken(_end: Exit) -> None:
        raise ValueError("no event")

    world.process.watch(broken)
    await world.start()
    world.vminitd.end(4)
    assert (await world.wait()).status == 4


def test_the_name_is_for_messages(log: Logger) -> None:
    async def name(exec_id: str) -> str:
        world = World(log)
        process = Process(
            container_id="c", exec_id=exec_id, pid=1, paths=world.process.paths, guest=world.guest, log=log
        )
        await world.close()
        return process.name

    assert asyncio.run(name("")) == "container c"
    assert asyncio.run(name("e")) == "process e of c"
