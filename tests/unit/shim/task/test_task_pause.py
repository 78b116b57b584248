"""Pause and Resume over real ttrpc, and what else is answered meanwhile; only the machine is a stand-in."""

import asyncio
from pathlib import Path

import pytest

from api import task_pb2, task_types_pb2
from shim import deadlines
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.exec_calls import delete, exec_request, refused, running, start, state, told, wait
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import World, turns
from ttrpc import Code, StatusError


async def _pause(shim: Shim) -> None:
    await shim.task.Pause(task_pb2.PauseRequest(id="c"), timeout_s=20)


async def _resume(shim: Shim) -> None:
    await shim.task.Resume(task_pb2.ResumeRequest(id="c"), timeout_s=20)


async def _status(shim: Shim, exec_id: str = "") -> int:
    return (await state(shim, exec_id)).status


async def _paused(shim: Shim) -> World:
    """A paused container with a process that exec has added and one that it has registered."""
    world = await running(shim)
    for name in ("e", "registered"):
        await shim.task.Exec(exec_request(name), timeout_s=20)
    await start(shim)
    await _pause(shim)
    return world


async def test_all_processes_are_paused_and_go_on(shim: Shim) -> None:
    world = await _paused(shim)
    assert {await _status(shim, name) for name in ("", "e", "registered")} == {task_types_pb2.PAUSED}
    await _resume(shim)
    assert [await _status(shim, name) for name in ("", "e")] == [task_types_pb2.RUNNING] * 2
    assert await _status(shim, "registered") == task_types_pb2.CREATED
    assert world.vminitd.pauses == ["pause", "resume"]
    assert shim.told.names[-2:] == ["TaskPaused", "TaskResumed"]


async def test_what_makes_no_sense_meanwhile_is_refused_by_the_shim_itself(shim: Shim) -> None:
    world = await _paused(shim)
    starts = world.vminitd.starts
    for call, words in (
        (_pause(shim), "cannot pause container c: it is paused"),
        (shim.start(), "cannot start container c: it is paused"),
        (shim.task.Exec(exec_request("f"), timeout_s=20), "cannot exec f in container c: it is paused"),
        (start(shim, "registered"), "cannot start registered in container c: it is paused"),
        (delete(shim, ""), "cannot delete container c: it is paused"),
        (delete(shim, "e"), "cannot delete process e of c: it is running"),
    ):
        await refused(call, Code.FAILED_PRECONDITION, words)
    assert (world.vminitd.pauses, world.vminitd.starts) == (["pause"], starts)
    await _resume(shim)
    await refused(_resume(shim), Code.FAILED_PRECONDITION, "cannot resume container c: it is running")
    await start(shim, "registered")


async def test_one_that_does_not_run_cannot_be_paused(shim: Shim) -> None:
    world = await shim.create()
    for call, words in ((_pause(shim), "cannot pause .* created"), (_resume(shim), "cannot resume .* created")):
        await refused(call, Code.FAILED_PRECONDITION, words)
    await shim.start()
    world.vminitd.end(0)
    await world.wait()
    for call, words in ((_pause(shim), "cannot pause .* stopped"), (_resume(shim), "cannot resume .* stopped")):
        await refused(call, Code.FAILED_PRECONDITION, words)
    assert world.vminitd.pauses == []


async def test_a_pause_that_fails_leaves_it_running(shim: Shim) -> None:
    world = await running(shim)
    world.vminitd.pause_error = StatusError(Code.INTERNAL, "the processes did not stand still")
    await refused(_pause(shim), Code.INTERNAL, "did not stand still")
    assert await _status(shim) == task_types_pb2.RUNNING
    assert "TaskPaused" not in told(shim)
    world.vminitd.pause_error = None
    await _pause(shim)


async def test_a_resume_that_fails_leaves_it_paused(shim: Shim) -> None:
    world = await _paused(shim)
    world.vminitd.pause_error = StatusError(Code.INTERNAL, "cannot thaw")
    await refused(_resume(shim), Code.INTERNAL, "cannot thaw")
    assert await _status(shim) == task_types_pb2.PAUSED
    world.vminitd.pause_error = None
    await _resume(shim)


async def test_a_pause_without_an_answer_is_called_off(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest hears of the pause, perhaps, and of its end in any case."""
    monkeypatch.setattr(deadlines, "GUEST_PAUSE_S", 0.1)
    world = await running(shim)
    world.vminitd.may_pause.clear()
    pausing = asyncio.create_task(_pause(shim))
    while not world.vminitd.pauses:
        await turns()
    assert await _status(shim) == task_types_pb2.PAUSING
    await refused(pausing, Code.DEADLINE_EXCEEDED, r"did not answer within 0\.1 s")
    assert (world.vminitd.pauses, await _status(shim)) == (["pause", "resume"], task_types_pb2.RUNNING)


async def test_what_would_start_during_a_pause_can_be_started_after_it(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request("e"), timeout_s=20)
    world.vminitd.may_pause.clear()
    pausing = asyncio.create_task(_pause(shim))
    while not world.vminitd.pauses:
        await turns()
    await refused(start(shim), Code.FAILED_PRECONDITION, "cannot start e in container c: it is being paused")
    world.vminitd.may_pause.set()
    await pausing
    await _resume(shim)
    await start(shim)


async def test_its_end_meanwhile_is_told_once(shim: Shim) -> None:
    world = await _paused(shim)
    world.vminitd.execs["e"].end(137)
    assert await wait(shim) == 137
    assert await _status(shim, "e") == task_types_pb2.STOPPED
    await delete(shim)
    await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9), timeout_s=20)
    world.vminitd.end(137)
    assert await wait(shim, "") == 137
    assert await _status(shim) == task_types_pb2.STOPPED
    assert [name for name in told(shim) if "Exit" in name] == ["TaskExit e", "TaskExit c"]
    await delete(shim, "")


async def test_an_end_during_a_pause_wins(shim: Shim) -> None:
    world = await running(shim)
    world.vminitd.may_pause.clear()
    pausing = asyncio.create_task(_pause(shim))
    while not world.vminitd.pauses:
        await turns()
    world.vminitd.end(3)
    assert await wait(shim, "") == 3
    world.vminitd.may_pause.set()
    await refused(pausing, Code.FAILED_PRECONDITION, "is stopped: it cannot become paused")
    assert "TaskPaused" not in told(shim)


async def test_a_machine_that_is_lost_ends_a_paused_container(shim: Shim, tmp_path: Path) -> None:
    world = await _paused(shim)
    world.died.set_result(MachineExit(Cause.QEMU, -9))
    assert [await wait(shim), await wait(shim, "")] == [137, 137]
    await refused(_resume(shim), Code.FAILED_PRECONDITION, "it is stopped")
    await delete(shim, "")


async def test_a_pause_goes_on_without_its_caller(shim: Shim) -> None:
    """containerd restarts: what it asked for is done, and told."""
    world = await running(shim)
    world.vminitd.may_pause.clear()
    client = shim.connect()
    pausing = asyncio.create_task(client.Pause(task_pb2.PauseRequest(id="c"), timeout_s=20))
    while not world.vminitd.pauses:
        await turns()
    await shim.clients[-1].close()
    with pytest.raises(Exception, match="closed"):
        await pausing
    world.vminitd.may_pause.set()
    while await _status(shim) != task_types_pb2.PAUSED:
        await turns()
    assert told(shim)[-1] == "TaskPaused"
