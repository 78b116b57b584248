"""The task API over real ttrpc, as containerd calls it; only the machine is a stand-in."""

import asyncio
import time
from pathlib import Path

import pytest

from api import events_pb2, task_pb2, task_types_pb2
from shim.errors import HostError, MissingPartError, SpecError
from shim.task.state import State
from shim.version import VERSION
from tests.unit.shim.task.exec_calls import refused
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import turns
from ttrpc import Code, StatusError


async def test_an_ordinary_life(shim: Shim) -> None:
    world = await shim.create()
    waiting = asyncio.create_task(shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20))
    await shim.start()
    state = await shim.task.State(task_pb2.StateRequest(id="c"), timeout_s=20)
    assert (state.id, state.bundle, state.pid, state.status) == ("c", "/b", 5, task_types_pb2.RUNNING)
    before_ns = time.time_ns()
    world.vminitd.end(42)
    end = await waiting
    assert end.exit_status == 42
    assert before_ns <= end.exited_at.ToNanoseconds() <= time.time_ns()
    state = await shim.task.State(task_pb2.StateRequest(id="c"), timeout_s=20)
    assert (state.status, state.exit_status) == (task_types_pb2.STOPPED, 42)
    deleted = await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
    assert (deleted.pid, deleted.exit_status) == (5, 42)
    assert shim.told.names == ["TaskCreate", "TaskStart", "TaskExit", "TaskDelete"]
    told = shim.told.events[2]
    assert isinstance(told, events_pb2.TaskExit)
    assert (told.container_id, told.id, told.pid, told.exit_status) == ("c", "c", 5, 42)
    await shim.task.Shutdown(task_pb2.ShutdownRequest(id="c"), timeout_s=20)
    assert (shim.stops, shim.made.undone) == (1, ["c"])


async def test_the_same_under_the_name_of_version_2(shim: Shim) -> None:
    await shim.create()
    reply = await shim.clients[0].call(
        "/containerd.task.v2.Task/Connect", task_pb2.ConnectRequest(id="c"), task_pb2.ConnectResponse, timeout_s=20
    )
    assert (reply.shim_pid, reply.task_pid, reply.version) == (77, 5, VERSION)


async def test_connect_never_fails(shim: Shim) -> None:
    reply = await shim.task.Connect(task_pb2.ConnectRequest(id="unknown"), timeout_s=20)
    assert (reply.shim_pid, reply.task_pid) == (77, 0)


async def test_an_unknown_container_is_not_found(shim: Shim) -> None:
    for call in (
        shim.task.Start(task_pb2.StartRequest(id="x")),
        shim.task.State(task_pb2.StateRequest(id="x")),
        shim.task.Wait(task_pb2.WaitRequest(id="x")),
        shim.task.Kill(task_pb2.KillRequest(id="x", signal=9)),
        shim.task.Pids(task_pb2.PidsRequest(id="x")),
        shim.task.CloseIO(task_pb2.CloseIORequest(id="x", stdin=True)),
        shim.task.Delete(task_pb2.DeleteRequest(id="x")),
    ):
        with pytest.raises(StatusError, match="container x not found") as caught:
            await call
        assert caught.value.code is Code.NOT_FOUND


async def test_a_process_that_exec_never_made_is_not_found(shim: Shim) -> None:
    await shim.create()
    with pytest.raises(StatusError, match="no process e in container c") as caught:
        await shim.task.State(task_pb2.StateRequest(id="c", exec_id="e"), timeout_s=20)
    assert caught.value.code is Code.NOT_FOUND


async def test_what_is_no_terminal_has_no_size(shim: Shim) -> None:
    await shim.create()
    with pytest.raises(StatusError, match="container c has no terminal") as caught:
        await shim.task.ResizePty(task_pb2.ResizePtyRequest(id="c", width=80, height=25), timeout_s=20)
    assert caught.value.code is Code.FAILED_PRECONDITION


async def test_what_is_not_there_is_never_answered_with_success(shim: Shim) -> None:
    await shim.create()
    for call in (
        shim.task.Checkpoint(task_pb2.CheckpointTaskRequest(id="c")),
        shim.task.Create(task_pb2.CreateTaskRequest(id="d", checkpoint="/x")),
        shim.task.Create(task_pb2.CreateTaskRequest(id="d")),
    ):
        with pytest.raises(StatusError) as caught:
            await call
        assert caught.value.code is Code.UNIMPLEMENTED


async def test_one_id_is_created_once(shim: Shim) -> None:
    shim.made.may_create.clear()
    first = asyncio.create_task(shim.create())
    await shim.made.creating.wait()
    for _ in range(2):  # under way, then done
        with pytest.raises(StatusError) as caught:
            await shim.task.Create(task_pb2.CreateTaskRequest(id="c"), timeout_s=20)
        assert caught.value.code is Code.ALREADY_EXISTS
        shim.made.may_create.set()
        await first


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (SpecError("no such thing", hint="ask for another"), Code.INVALID_ARGUMENT, "no such thing (ask for another)"),
        (MissingPartError("/x: no such file"), Code.FAILED_PRECONDITION, "/x: no such file"),
        (HostError("it broke"), Code.INTERNAL, "it broke"),
        (ZeroDivisionError("a bug"), Code.INTERNAL, "Create: ZeroDivisionError: a bug"),
    ],
)
async def test_an_error_has_its_status_and_leaves_nothing(
    shim: Shim, error: Exception, code: Code, message: str, tmp_path: Path
) -> None:
    shim.made.error = error
    with pytest.raises(StatusError) as caught:
        await shim.task.Create(task_pb2.CreateTaskRequest(id="c"), timeout_s=20)
    assert (caught.value.code, caught.value.message) == (code, message)
    assert (shim.made.undone, shim.told.names) == (["c"], [])
    assert message.rpartition(": ")[2] in (tmp_path / "log").read_text()
    shim.made.error = None
    await shim.create()


async def test_a_running_container_cannot_be_deleted(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    with pytest.raises(StatusError, match="cannot delete container c: it is running") as caught:
        await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
    assert caught.value.code is Code.FAILED_PRECONDITION
    world.vminitd.end(0)
    await world.wait()
    await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)


async def test_one_that_was_never_started_can_be_deleted(shim: Shim) -> None:
    """It ends first: as with runc, its exit is told."""
    world = await shim.create()
    world.vminitd.dies_of_sigkill = True
    waiting = asyncio.create_task(shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20))
    await turns()
    assert (await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)).exit_status == 137
    assert (await waiting).exit_status == 137
    assert world.vminitd.kills == [(9, False)]
    assert shim.told.names == ["TaskCreate", "TaskExit", "TaskDelete"]


async def test_one_that_was_never_started_and_has_just_ended_is_deleted_after_its_exit(shim: Shim) -> None:
    world = await shim.create()
    world.vminitd.kill_error = StatusError(Code.NOT_FOUND, "container 'c' has already finished")
    deleting = asyncio.create_task(shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20))
    await turns()
    assert world.vminitd.kills == [(9, False)]
    assert shim.told.names == ["TaskCreate"]
    world.vminitd.end(137)
    assert (await deleting).exit_status == 137
    assert shim.told.names == ["TaskCreate", "TaskExit", "TaskDelete"]


async def test_one_that_was_never_started_can_be_deleted_without_its_machine(shim: Shim) -> None:
    world = await shim.create()
    await world.server.close(0)
    await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
    assert shim.told.names == ["TaskCreate", "TaskExit", "TaskDelete"]


async def test_pids_are_never_empty(shim: Shim) -> None:
    """containerd takes a container without processes for a leak after its restart (contract 1.9)."""
    world = await shim.create()
    for status in (None, 0):
        if status is not None:
            await shim.start()
            world.vminitd.end(status)
            await world.wait()
        reply = await shim.task.Pids(task_pb2.PidsRequest(id="c"), timeout_s=20)
        assert [process.pid for process in reply.processes] == [5]


async def test_kill_reaches_the_guest(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    await shim.task.Kill(task_pb2.KillRequest(id="c", signal=15, all=True), timeout_s=20)
    assert world.vminitd.kills == [(15, True)]
    world.vminitd.end(143)
    await world.wait()
    with pytest.raises(StatusError, match="process already finished") as caught:
        await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9), timeout_s=20)
    assert caught.value.code is Code.NOT_FOUND
    await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9, all=True), timeout_s=20)  # all that there are
    assert world.vminitd.kills == [(15, True)]


async def test_all_of_what_ends_just_now_are_reached(shim: Shim) -> None:
    """The guest knows of the end, we do not yet."""
    world = await shim.create()
    await shim.start()
    world.vminitd.kill_error = StatusError(Code.NOT_FOUND, "container 'c': process already finished")
    await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9, all=True), timeout_s=20)
    with pytest.raises(StatusError, match="process already finished"):
        await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9), timeout_s=20)


async def test_fifty_wait_and_hear_the_same(shim: Shim) -> None:
    world = await shim.create()
    waiting = [asyncio.create_task(shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)) for _ in range(50)]
    await shim.start()
    waiting[0].cancel()  # one that goes away takes nobody with it
    await turns()
    world.vminitd.end(143)
    assert [(await each).exit_status for each in waiting[1:]] == [143] * 49
    assert (await shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)).exit_status == 143


async def test_shutdown_with_a_container_stays(shim: Shim) -> None:
    await shim.create()
    await shim.task.Shutdown(task_pb2.ShutdownRequest(id="c"), timeout_s=20)
    assert shim.stops == 0


async def test_after_shutdown_nothing_is_created(shim: Shim) -> None:
    for _ in range(2):
        await shim.task.Shutdown(task_pb2.ShutdownRequest(id="c"), timeout_s=20)
    assert shim.stops == 1
    with pytest.raises(StatusError, match="shutting down") as caught:
        await shim.task.Create(task_pb2.CreateTaskRequest(id="c"), timeout_s=20)
    assert caught.value.code is Code.NOT_FOUND


async def test_a_create_whose_caller_goes_away_is_undone(shim: Shim) -> None:
    other = shim.connect()
    shim.made.may_create.clear()
    creating = asyncio.create_task(other.Create(task_pb2.CreateTaskRequest(id="c")))
    await shim.made.creating.wait()
    await shim.clients.pop().close()
    await asyncio.wait([creating])
    assert creating.exception() is not None
    await asyncio.wait([shim.serving.pop()])
    assert shim.made.undone == ["c"]
    shim.made.may_create.set()
    await shim.create()


async def test_a_start_whose_caller_goes_away_goes_on(shim: Shim) -> None:
    world = await shim.create()
    other = shim.connect()
    world.vminitd.may_start.clear()
    starting = asyncio.create_task(other.Start(task_pb2.StartRequest(id="c")))
    await world.vminitd.starting.wait()
    await shim.clients.pop().close()
    await asyncio.wait([starting, shim.serving.pop()])
    assert starting.exception() is not None
    assert shim.told.names == ["TaskCreate"]
    world.vminitd.may_start.set()
    world.vminitd.end(0)
    await world.wait()
    assert shim.told.names == ["TaskCreate", "TaskStart", "TaskExit"]


async def test_a_delete_whose_caller_goes_away_goes_on(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    world.vminitd.end(0)
    await world.wait()
    other = shim.connect()
    shim.made.may_release.clear()
    deleting = asyncio.create_task(other.Delete(task_pb2.DeleteRequest(id="c")))
    while world.process.state is not State.DELETED:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    await shim.clients.pop().close()
    await asyncio.wait([deleting, shim.serving.pop()])
    assert deleting.exception() is not None
    await shim.task.Shutdown(task_pb2.ShutdownRequest(id="c"), timeout_s=20)
    assert (shim.made.undone, shim.stops) == ([], 0)  # it is still there
    shim.made.may_release.set()
    await turns()
    assert shim.made.undone == ["c"]
    assert shim.told.names[-1] == "TaskDelete"
    await shim.task.Shutdown(task_pb2.ShutdownRequest(id="c"), timeout_s=20)
    assert shim.stops == 1


async def test_two_deletes_at_once_are_answered_as_one_after_the_other(shim: Shim) -> None:
    """As after a restart of containerd, which does not know that the first one goes on; State tells of its end."""
    world = await shim.create()
    await shim.start()
    world.vminitd.end(42)
    await world.wait()
    shim.made.may_release.clear()
    deleting = [asyncio.create_task(shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)) for _ in range(2)]
    while world.process.state is not State.DELETED:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    state = await shim.task.State(task_pb2.StateRequest(id="c"), timeout_s=20)
    assert (state.status, state.exit_status) == (task_types_pb2.STOPPED, 42)
    shim.made.may_release.set()
    assert (await deleting[0]).exit_status == 42
    await refused(deleting[1], Code.NOT_FOUND, "container c not found")
    assert shim.told.names.count("TaskDelete") == 1


async def test_what_is_asked_while_it_is_deleted_finds_nothing(shim: Shim) -> None:
    """But that it is there: containerd takes one without processes for a leak after its restart."""
    world = await shim.create()
    world.vminitd.dies_of_sigkill = True
    shim.made.may_release.clear()
    deleting = asyncio.create_task(shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20))
    starting = asyncio.create_task(shim.task.Start(task_pb2.StartRequest(id="c"), timeout_s=20))
    while world.process.state is not State.DELETED:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    assert (await shim.task.Pids(task_pb2.PidsRequest(id="c"), timeout_s=20)).processes
    exec_ = task_pb2.ExecProcessRequest(id="c", exec_id="e")
    await refused(shim.task.Exec(exec_, timeout_s=20), Code.NOT_FOUND, "container c not found")
    shim.made.may_release.set()
    assert (await deleting).exit_status == 137
    await refused(starting, Code.NOT_FOUND, "container c not found")


async def test_a_shutdown_whose_caller_goes_away_goes_on(shim: Shim) -> None:
    """As where containerd is killed during it: nobody could reach the shim any more, which would never end."""
    other = shim.connect()
    shim.may_stop.clear()
    stopping = asyncio.create_task(other.Shutdown(task_pb2.ShutdownRequest(id="c")))
    await shim.stopping.wait()
    await shim.clients.pop().close()
    await asyncio.wait([stopping, shim.serving.pop()])
    assert stopping.exception() is not None
    assert shim.stops == 0
    shim.may_stop.set()
    await turns()
    assert shim.stops == 1
