"""Execs as containerd calls for them: registered, started, signalled, freed; the guest is a stand-in."""

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from api import events_pb2, guest_pb2, runc_options_pb2, task_pb2, task_types_pb2
from api.frames import FrameReader
from shim import deadlines
from shim.errors import HostError, ResourceError
from tests.unit.shim.task.ends import read_all, read_end, write_end
from tests.unit.shim.task.exec_calls import delete, exec_request, refused, running, start, state, told, wait
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import turns
from ttrpc import Code, StatusError


async def test_an_ordinary_life(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    assert ((await state(shim)).status, (await state(shim)).pid) == (task_types_pb2.CREATED, 0)
    assert world.vminitd.execs == {}  # the guest is asked when there is something to run
    waiting = asyncio.create_task(wait(shim))
    assert await start(shim) == 100
    assert ((await state(shim)).status, (await state(shim)).pid) == (task_types_pb2.RUNNING, 100)
    guest = world.vminitd.execs["e"]
    assert json.loads(guest.request.process) == {"args": ["true"], "cwd": "/", "terminal": False}
    assert guest.request.stdio == guest_pb2.Stdio()  # null streams
    assert guest.calls == ["exec", "start"]
    before_ns = time.time_ns()
    guest.end(7)
    assert await waiting == 7
    found = await state(shim)
    assert (found.status, found.exit_status, found.exec_id, found.id) == (task_types_pb2.STOPPED, 7, "e", "c")
    assert before_ns <= found.exited_at.ToNanoseconds() <= time.time_ns()
    deleted = await delete(shim)
    assert (deleted.pid, deleted.exit_status) == (100, 7)
    assert told(shim) == ["TaskCreate", "TaskStart", "TaskExecAdded e", "TaskExecStarted e", "TaskExit e"]
    started, ended = shim.told.events[-2:]
    assert isinstance(started, events_pb2.TaskExecStarted)
    assert isinstance(ended, events_pb2.TaskExit)
    assert (started.container_id, started.pid) == ("c", 100)
    assert (ended.container_id, ended.pid, ended.exit_status) == ("c", 100, 7)
    assert (world.vminitd.execs, [anchor.lives for anchor in shim.made.anchors]) == ({}, [False])
    await refused(state(shim), Code.NOT_FOUND, "no process e in container c")
    await shim.task.Exec(exec_request(), timeout_s=20)  # the id is free again
    assert await start(shim) == 101


async def test_pids_say_which_are_execs(shim: Shim) -> None:
    world = await running(shim)
    for exec_id in ("registered", "running"):
        await shim.task.Exec(exec_request(exec_id), timeout_s=20)
    await start(shim, "running")

    async def pids() -> list[tuple[int, str]]:
        found = []
        for process in (await shim.task.Pids(task_pb2.PidsRequest(id="c"), timeout_s=20)).processes:
            assert process.info.type_url in ("", "containerd.runc.v1.ProcessDetails")
            found.append((process.pid, runc_options_pb2.ProcessDetails.FromString(process.info.value).exec_id))
        return found

    assert await pids() == [(5, ""), (100, "running")]
    world.vminitd.execs["running"].end(0)
    await wait(shim, "running")
    assert await pids() == [(5, "")]


async def test_what_cannot_be_registered(shim: Shim) -> None:
    await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    await refused(shim.task.Exec(exec_request()), Code.ALREADY_EXISTS, "container c has a process e already")
    await refused(shim.task.Exec(exec_request("")), Code.INVALID_ARGUMENT, "no id")
    await refused(shim.task.Exec(task_pb2.ExecProcessRequest(id="c", exec_id="f")), Code.INVALID_ARGUMENT, "not JSON")
    await refused(shim.task.Exec(exec_request("f", stdout="/nonexistent/x")), Code.INTERNAL, "/nonexistent/x")
    await refused(shim.task.Exec(exec_request("f", stdout="binary:")), Code.INTERNAL, "binary:")
    await refused(shim.task.Exec(exec_request("f", stdout="ttrpc+unix:///s")), Code.UNIMPLEMENTED, r"ttrpc\+unix://")
    await refused(shim.task.Exec(exec_request("f", stdout="binary://x")), Code.INVALID_ARGUMENT, "names no logger")
    await refused(state(shim, "f"), Code.NOT_FOUND, "no process f")
    assert told(shim)[2:] == ["TaskExecAdded e"]


async def test_one_in_a_container_that_is_not_started_yet(shim: Shim) -> None:
    """As with runc; it ends with the container, and before it."""
    world = await shim.create()
    await shim.task.Exec(exec_request(), timeout_s=20)
    assert await start(shim) == 100
    assert told(shim)[1:] == ["TaskExecAdded e", "TaskExecStarted e"]
    world.vminitd.dies_of_sigkill = True
    deleting = asyncio.create_task(shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20))
    await turns()
    world.vminitd.execs["e"].end(137)
    await deleting
    assert shim.told.names[3:] == ["TaskExit", "TaskExit", "TaskDelete"]


async def test_nothing_is_registered_in_one_that_has_ended(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.end(0)
    await wait(shim, "")
    await refused(
        shim.task.Exec(exec_request("f")), Code.FAILED_PRECONDITION, "cannot exec f in container c: it is stopped"
    )
    await refused(start(shim), Code.FAILED_PRECONDITION, "cannot start e in container c: it is stopped")


async def test_a_missing_program_fails_at_start_and_can_be_deleted(shim: Shim, tmp_path: Path) -> None:
    world = await running(shim)
    fifo = tmp_path / "stdout"
    os.mkfifo(fifo)
    reader = read_end(fifo)
    await shim.task.Exec(exec_request(stdout=str(fifo)), timeout_s=20)
    waiting = asyncio.create_task(wait(shim))
    world.vminitd.start_error = StatusError(Code.INTERNAL, "executable file `nope` not found in $PATH")
    await refused(start(shim), Code.INTERNAL, "executable file `nope` not found")
    assert await waiting == 127
    assert await read_all(reader) == b""  # nobody waits for output that never comes
    os.close(reader)
    assert (await state(shim)).status == task_types_pb2.STOPPED
    await refused(start(shim), Code.FAILED_PRECONDITION, "cannot start process e of c: it is stopped")
    assert (world.vminitd.execs, shim.made.anchors[0].lives) == ({}, False)
    assert (await delete(shim)).exit_status == 127
    assert told(shim)[2:] == ["TaskExecAdded e"]
    world.vminitd.start_error = None
    await shim.task.Exec(exec_request(), timeout_s=20)
    await start(shim)


async def test_an_anchor_that_cannot_be_started_leaves_nothing_running(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    shim.made.anchor_error = HostError("cannot start the anchor process: no pids left")
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim))
    await world.vminitd.starting.wait()
    guest = world.vminitd.execs["e"]
    world.vminitd.may_start.set()
    await refused(starting, Code.INTERNAL, "no pids left")
    assert guest.calls == ["exec", "start", "kill 9", "delete"]
    await delete(shim)


async def test_a_machine_without_room_for_more_streams_is_asked_nothing(shim: Shim, tmp_path: Path) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.sandbox.full = ResourceError("the 62 streams that a virtual machine can have at once are all in use")
    await refused(start(shim), Code.RESOURCE_EXHAUSTED, "62 streams")
    assert (world.vminitd.execs, world.vminitd.starts) == ({}, 1)
    assert not any(anchor.lives for anchor in shim.made.anchors)
    assert (await delete(shim)).exit_status == 127
    assert "not killed" not in (tmp_path / "log").read_text()
    world.sandbox.full = None
    await shim.task.Exec(exec_request(), timeout_s=20)
    await start(shim)


async def test_a_start_that_is_not_answered_is_cleaned_up_by_delete(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "GUEST_CRUN_S", 0.05)
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.may_start.clear()
    world.vminitd.delete_error = StatusError(Code.FAILED_PRECONDITION, "process 'e' of container 'c' is starting")
    await refused(start(shim), Code.DEADLINE_EXCEEDED, "did not answer within 0.05 s")
    await refused(delete(shim), Code.FAILED_PRECONDITION, "is starting")
    await refused(shim.task.Exec(exec_request()), Code.ALREADY_EXISTS, "has a process e already")
    world.vminitd.delete_error = None
    await delete(shim)
    assert world.vminitd.execs == {}


async def test_kill_reaches_only_one_that_runs(shim: Shim) -> None:
    world = await running(shim)

    async def kill() -> None:
        """All are the first process's: of an exec's there is one."""
        await shim.task.Kill(task_pb2.KillRequest(id="c", exec_id="e", signal=15, all=True), timeout_s=20)

    await shim.task.Exec(exec_request(), timeout_s=20)
    await refused(kill(), Code.FAILED_PRECONDITION, "cannot kill process e of c: it has not been started")
    await start(shim)
    await kill()
    assert world.vminitd.execs["e"].calls == ["exec", "start", "kill 15"]
    assert world.vminitd.kills == []
    world.vminitd.execs["e"].end(143)
    assert await wait(shim) == 143
    await refused(kill(), Code.NOT_FOUND, "process already finished")


async def test_a_terminal_s_size_is_remembered_until_there_is_one(shim: Shim) -> None:
    world = await running(shim)

    async def resize(exec_id: str, width: int) -> None:
        request = task_pb2.ResizePtyRequest(id="c", exec_id=exec_id, width=width, height=12)
        await shim.task.ResizePty(request, timeout_s=20)

    await shim.task.Exec(exec_request("plain"), timeout_s=20)
    await refused(resize("plain", 1), Code.FAILED_PRECONDITION, "process plain of c has no terminal")
    await shim.task.Exec(exec_request("t", terminal=True), timeout_s=20)
    await resize("t", 33)
    await resize("t", 34)
    await start(shim, "t")
    await resize("t", 35)
    assert world.vminitd.execs["t"].calls == ["exec", "resize 34x12", "start", "resize 35x12"]
    assert world.vminitd.execs["t"].request.stdio.terminal


@pytest.mark.parametrize("when", ["before the start", "after it"])
async def test_close_io_ends_the_input(shim: Shim, tmp_path: Path, when: str) -> None:
    world = await running(shim)
    fifo = tmp_path / "stdin"
    os.mkfifo(fifo)
    await shim.task.Exec(exec_request(stdin=str(fifo)), timeout_s=20)
    writer = write_end(fifo)
    os.write(writer, b"said before")

    async def close() -> None:
        await shim.task.CloseIO(task_pb2.CloseIORequest(id="c", exec_id="e", stdin=True), timeout_s=20)

    if when == "before the start":
        await close()
    await start(shim)
    if when == "after it":
        await close()
    frames, got = FrameReader(), b""
    while not frames.ended:
        data = await asyncio.get_running_loop().sock_recv(world.vminitd.execs["e"].streams["stdin"], 4096)
        assert data, "closed without an end"
        got += b"".join(bytes(piece) for piece in frames.feed(memoryview(data)))
    assert got == b"said before"
    os.close(writer)


async def test_one_that_was_never_started_can_be_deleted(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    waiting = asyncio.create_task(wait(shim))
    await turns()
    deleted = await delete(shim)
    assert (deleted.pid, deleted.exit_status) == (0, 0)
    assert await waiting == 137
    assert (world.vminitd.execs, shim.made.anchors) == ({}, [])
    assert told(shim)[2:] == ["TaskExecAdded e"]


async def test_one_that_runs_or_is_being_started_can_be_neither_deleted_nor_started(shim: Shim) -> None:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    world.vminitd.starting.clear()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(start(shim))
    await world.vminitd.starting.wait()
    await refused(delete(shim), Code.FAILED_PRECONDITION, "cannot delete process e of c: it is running")
    await refused(start(shim), Code.FAILED_PRECONDITION, "it is being started")
    world.vminitd.may_start.set()
    await starting
    await refused(delete(shim), Code.FAILED_PRECONDITION, "cannot delete process e of c: it is running")
    await refused(start(shim), Code.FAILED_PRECONDITION, "cannot start process e of c: it is running")
    world.vminitd.execs["e"].end(0)
    await wait(shim)
    await delete(shim)


async def test_several_start_at_once(shim: Shim) -> None:
    world = await running(shim)
    names = [f"e{number}" for number in range(8)]
    world.vminitd.may_start.clear()
    world.vminitd.starts = 0
    for name in names:
        await shim.task.Exec(exec_request(name), timeout_s=20)
    starting = [asyncio.create_task(start(shim, name)) for name in names]
    async with asyncio.timeout(20):
        while world.vminitd.starts < len(names):  # noqa: ASYNC110 - nothing tells of the last
            await asyncio.sleep(0)
    world.vminitd.may_start.set()
    assert len(set(await asyncio.gather(*starting))) == len(names)
    for number, name in enumerate(names):
        world.vminitd.execs[name].end(number)
    assert await asyncio.gather(*(wait(shim, name) for name in names)) == list(range(8))
