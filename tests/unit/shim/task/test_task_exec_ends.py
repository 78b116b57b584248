"""How execs end, by themselves or with what they need, and in which order that is told; the guest is a stand-in."""

import asyncio
import os
from pathlib import Path

import pytest

from api import task_pb2
from api.frames import END, header
from shim import deadlines
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import read_all, read_end
from tests.unit.shim.task.exec_calls import delete, exec_request, refused, running, start, state, told, wait
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import GuestExec, turns
from ttrpc import Code, StatusError


async def test_nothing_is_registered_or_started_after_the_end_of_the_first_process(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.end(0)
    await world.wait()
    await refused(
        shim.task.Exec(exec_request("f")), Code.FAILED_PRECONDITION, "cannot exec f in container c: it is stopped"
    )
    await refused(start(shim), Code.FAILED_PRECONDITION, "cannot start e in container c: it is stopped")
    await delete(shim)
    assert world.vminitd.starts == 1


async def test_all_output_is_there_before_wait_is_answered(shim: Shim, tmp_path: Path) -> None:
    world = await running(shim)
    fifos = {name: tmp_path / name for name in ("stdout", "stderr")}
    for fifo in fifos.values():
        os.mkfifo(fifo)
    await shim.task.Exec(exec_request(stdout=str(fifos["stdout"]), stderr=str(fifos["stderr"])), timeout_s=20)
    readers = {name: read_end(path) for name, path in fifos.items()}
    await start(shim)
    guest = world.vminitd.execs["e"]
    waiting = asyncio.create_task(wait(shim))
    guest.end(0)
    for name, stream in guest.streams.items():
        await asyncio.get_running_loop().sock_sendall(stream, header(len(name)) + name.encode() + END)
        assert not waiting.done()
    assert await waiting == 0
    for name, reader in readers.items():
        assert await read_all(reader) == name.encode()
        os.close(reader)
    found = await state(shim)
    assert (found.stdin, found.stdout, found.stderr) == ("", str(fifos["stdout"]), str(fifos["stderr"]))


async def test_the_exit_of_the_fastest_follows_its_start_event(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim))
    await world.vminitd.starting.wait()
    world.vminitd.execs["e"].end(0)
    world.vminitd.may_start.set()
    await starting
    await wait(shim)
    assert told(shim)[-2:] == ["TaskExecStarted e", "TaskExit e"]


async def test_a_start_whose_caller_goes_away_goes_on(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    other = shim.connect()
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(other.Start(task_pb2.StartRequest(id="c", exec_id="e")))
    await world.vminitd.starting.wait()
    await shim.clients.pop().close()
    await asyncio.wait([starting, shim.serving.pop()])
    assert starting.exception() is not None
    world.vminitd.may_start.set()
    world.vminitd.execs["e"].end(3)
    assert await wait(shim) == 3
    assert told(shim)[-2:] == ["TaskExecStarted e", "TaskExit e"]


async def test_the_exit_of_the_first_process_is_the_last(shim: Shim) -> None:
    world = await running(shim)
    for name in ("e", "f", "registered"):
        await shim.task.Exec(exec_request(name), timeout_s=20)
    await start(shim, "e")
    await start(shim, "f")
    world.vminitd.end(1)
    await turns()
    assert "TaskExit c" not in told(shim)
    world.vminitd.execs["f"].end(137)
    world.vminitd.execs["e"].end(137)
    assert (await world.wait()).status == 1
    assert [name for name in told(shim) if "Exit" in name] == ["TaskExit f", "TaskExit e", "TaskExit c"]


async def test_the_first_process_ends_while_another_starts(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim))
    await world.vminitd.starting.wait()
    world.vminitd.end(0)
    await turns()
    assert "TaskExit c" not in told(shim)
    world.vminitd.start_error = StatusError(Code.FAILED_PRECONDITION, "container 'c' is stopped, and not running")
    world.vminitd.may_start.set()
    await refused(starting, Code.FAILED_PRECONDITION, "is stopped")
    await world.wait()
    assert told(shim)[2:] == ["TaskExecAdded e", "TaskExit c"]


async def test_whatever_became_of_execs_the_first_process_s_exit_is_told(shim: Shim) -> None:
    """An ordinary one, one that fails to start, one faster than the answer to its start: none of them is miscounted."""
    world = await running(shim)
    await shim.task.Exec(exec_request("ordinary"), timeout_s=20)
    await start(shim, "ordinary")
    world.vminitd.execs["ordinary"].end(0)
    assert await wait(shim, "ordinary") == 0
    world.vminitd.start_error = StatusError(Code.INVALID_ARGUMENT, "no such program")
    for name in ("fails", "fails too"):
        await shim.task.Exec(exec_request(name), timeout_s=20)
        await refused(start(shim, name), Code.INVALID_ARGUMENT, "no such program")
    world.vminitd.start_error = None
    await shim.task.Exec(exec_request("fast"), timeout_s=20)
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim, "fast"))
    await world.vminitd.starting.wait()
    world.vminitd.execs["fast"].end(3)
    world.vminitd.may_start.set()
    await starting
    assert await wait(shim, "fast") == 3
    world.vminitd.end(5)
    assert (await world.wait()).status == 5
    assert [name for name in told(shim) if "Exit" in name] == ["TaskExit ordinary", "TaskExit fast", "TaskExit c"]


async def test_one_that_does_not_end_does_not_hold_up_the_end_for_ever(
    shim: Shim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(deadlines, "DRAIN_S", 0.05)
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    await start(shim)
    world.vminitd.end(0)
    await world.wait()
    assert "execs outlast their container" in (tmp_path / "log").read_text()
    await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
    assert shim.made.anchors[0].lives is False


async def test_a_machine_that_is_gone_ends_them_once_each(shim: Shim) -> None:
    world = await running(shim)
    for name in ("e", "registered"):
        await shim.task.Exec(exec_request(name), timeout_s=20)
    await start(shim)
    world.died.set_result(MachineExit(Cause.PANIC, 0))
    assert await wait(shim) == 137
    await world.wait()
    assert [name for name in told(shim) if "Exit" in name] == ["TaskExit e", "TaskExit c"]
    await refused(start(shim, "registered"), Code.FAILED_PRECONDITION, "it is stopped")
    assert (await delete(shim)).exit_status == 137
    await delete(shim, "registered")
    await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)


async def test_a_machine_that_goes_during_a_start(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim))
    await world.vminitd.starting.wait()
    world.died.set_result(MachineExit(Cause.QEMU, -9))
    await refused(starting, Code.UNAVAILABLE, "the virtual machine is gone")
    await world.wait()
    assert told(shim)[2:] == ["TaskExecAdded e", "TaskExit c"]
    await delete(shim)


async def test_what_is_left_goes_with_the_container(shim: Shim, tmp_path: Path) -> None:
    world = await running(shim)
    fifo = tmp_path / "stdout"
    os.mkfifo(fifo)
    with same_fds():
        for name in ("registered", "ended"):
            await shim.task.Exec(exec_request(name, stdout=str(fifo)), timeout_s=20)
        await start(shim, "ended")
        guest: GuestExec = world.vminitd.execs["ended"]
        guest.end(0)
        await asyncio.get_running_loop().sock_sendall(guest.streams["stdout"], END)
        await wait(shim, "ended")
        waiting = asyncio.create_task(wait(shim, "registered"))
        world.vminitd.end(0)
        await world.wait()
        await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
        assert await waiting == 137
        guest.streams["stdout"].close()
    await refused(state(shim, "ended"), Code.NOT_FOUND, "container c not found")
