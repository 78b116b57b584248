"""Update, from containerd's call to what the machine and its guest are told, and back where a step fails."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import structlog
from google.protobuf.empty_pb2 import Empty

from api import guest_pb2, task_pb2
from api.guest_ttrpc import ContainersBase, MachineBase
from api.task_ttrpc import TaskStub
from shim.anchor import Anchor
from shim.errors import GuestError
from shim.events import Publisher
from shim.guest import Guest
from shim.journal import Journal
from shim.log import Logger, open_log
from shim.sandbox import Sandbox
from shim.sizing import Bounds, Size
from shim.spec import Json
from shim.task.container import Container
from shim.task.create import Creator
from shim.task.logger import Loggers
from shim.task.process import Exit, Process, StdioPaths
from shim.task.resize import Resizer
from shim.task.service import TaskService
from shim.task.state import State
from shim.task.stats import Statistics
from shim.task.write_back import Changes
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.world import network_as_it_is, no_hooks
from ttrpc import Client, Code, Context, Server, StatusError

_MIB = 1 << 20
_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
_BOUNDS = Bounds(default_cpus=1, default_memory_mib=512, max_cpus=4, max_memory_mib=4096, host_cpus=frozenset(range(4)))
_GROW: Json = {"memory": {"limit": 1024 * _MIB}, "cpu": {"quota": 300_000}}
_SHRINK: Json = {"memory": {"limit": 256 * _MIB}, "cpu": {"quota": 50_000}}


class Vminitd(MachineBase):
    """The guest's end: writes down what it is told."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.refuses: dict[str, StatusError] = {}

    async def Resize(self, request: guest_pb2.ResizeRequest, context: Context) -> Empty:
        self.tell("vcpus", str(request.vcpus))
        return Empty()

    def tell(self, what: str, value: str) -> None:
        """Write it down, or refuse it as the test wants; once."""
        self.told.append(f"{what} {value}")
        for refused in (what, f"{what} {value}"):
            if refused in self.refuses:
                raise self.refuses.pop(refused)


class Containers(ContainersBase):
    """The other service of it."""

    def __init__(self, vminitd: Vminitd) -> None:
        self._vminitd = vminitd

    async def Update(self, request: guest_pb2.UpdateRequest, context: Context) -> Empty:
        assert request.container_id == "c"
        self._vminitd.tell("limits", json.dumps(json.loads(request.resources)))
        return Empty()


class Machine(Sandbox):
    """A sandbox without a machine: its memory does as the test says."""

    def __init__(self, guest: Guest, vminitd: Vminitd) -> None:
        self.guest = guest
        self._vminitd = vminitd
        self.fails: GuestError | None = None
        self.may_resize = asyncio.Event()
        self.may_resize.set()

    @property
    def memory_room_mib(self) -> int:
        return 2048

    def place(self, host_cpus: frozenset[int]) -> None:
        self._vminitd.told.append(f"place {sorted(host_cpus)}")

    async def resize_memory(self, memory_mib: int) -> None:
        self._vminitd.told.append(f"memory {memory_mib}")
        await self.may_resize.wait()
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error


class World:
    """A container of 512 MiB and two vCPUs behind a task service."""

    def __init__(self, log: Logger) -> None:
        self.told: list[str] = []
        self.vminitd = Vminitd(self.told)
        ours, theirs = _pair()
        self._servers = [Server([self.vminitd, Containers(self.vminitd)])]
        self._serving = [asyncio.create_task(self._servers[0].serve(theirs))]
        died: asyncio.Future[MachineExit] = asyncio.get_running_loop().create_future()
        self._guest = Guest(Client(ours), died)
        self.machine = Machine(self._guest, self.vminitd)
        limits: Json = {"memory": {"limit": 512 * _MIB}, "cpu": {"quota": 200_000}}
        self.sizes: list[Size] = []
        resizer = Resizer(
            "c",
            self.machine,
            size=Size(2, 512),
            resources=limits,
            bounds=_BOUNDS,
            on_resized=self.sizes.append,
            log=log,
        )
        paths = StdioPaths(terminal=False, stdin="", stdout="", stderr="")
        self.process = Process(container_id="c", exec_id="", pid=5, paths=paths, guest=self._guest, log=log)
        container = Container(
            container_id="c",
            bundle="/b",
            rootfs=[],
            init=self.process,
            sandbox=self.machine,
            changes=Changes("c", self.machine.guest, None, enabled=False, log=log),
            statistics=Statistics("c", self.machine.guest),
            resizer=resizer,
            resources=AsyncExitStack(),
            events=Publisher("", "default", log),
            before_start=network_as_it_is,
            on_started=lambda _: None,
            new_anchor=_no_anchor,
            hooks=no_hooks(log),
            loggers=Loggers("default", Journal("/nonexistent"), log),
            log=log,
        )
        service = TaskService(_Made(container), shim_pid=7, stop=_nothing, log=log)
        ours, theirs = _pair()
        self._servers.append(Server([service]))
        self._serving.append(asyncio.create_task(self._servers[1].serve(theirs)))
        self._client = Client(ours)
        self.task = TaskStub(self._client)

    async def update(self, resources: Json, type_url: str = _TYPE) -> None:
        """As containerd calls it."""
        request = task_pb2.UpdateTaskRequest(id="c")
        request.resources.type_url = type_url
        request.resources.value = json.dumps(resources).encode()
        await self.task.Update(request, timeout_s=20)

    async def close(self) -> None:
        await self._client.close()
        await self._guest.close()
        for server in self._servers:
            await server.close(0)
        await asyncio.gather(*self._serving)


class _Made(Creator):
    """Has made the container already."""

    def __init__(self, container: Container) -> None:
        self._container = container

    async def create(self, request: task_pb2.CreateTaskRequest) -> Container:
        return self._container


async def _no_anchor() -> Anchor:
    raise AssertionError("nothing here makes a further process")


async def _nothing() -> None:
    return


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for sock in pair:
        sock.setblocking(False)
    return pair


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logger]:
    (tmp_path / "log").touch()
    yield open_log(tmp_path / "log", level="debug", namespace="ns", container_id="c")
    structlog.reset_defaults()


@pytest.fixture
async def world(log: Logger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(Publisher, "publish", lambda _self, _event: None)
    monkeypatch.setattr(Process, "watch", lambda _self, _on_exit: None)
    made = World(log)
    await made.task.Create(task_pb2.CreateTaskRequest(id="c", bundle="/b"), timeout_s=20)
    yield made
    await made.close()


def _limits(memory_mib: int, quota: int) -> str:
    return f'limits {{"memory": {{"limit": {memory_mib * _MIB}}}, "cpu": {{"quota": {quota}}}}}'


async def test_the_machine_grows_first_and_shrinks_last(world: World) -> None:
    await world.update(_GROW)
    assert world.told == ["vcpus 3", "memory 1024", _limits(1024, 300_000)]
    world.told.clear()
    await world.update(_SHRINK)
    assert world.told == [_limits(256, 50_000), "vcpus 1", "memory 256"]
    assert world.sizes == [Size(3, 1024), Size(1, 256)]


async def test_a_guest_that_refuses_the_limits_stays_as_it_was(world: World) -> None:
    world.vminitd.refuses["limits"] = StatusError(Code.FAILED_PRECONDITION, "it uses 300.0 MiB")
    with pytest.raises(StatusError, match=r"it uses 300\.0 MiB") as caught:
        await world.update(_SHRINK)
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert world.told == [_limits(256, 50_000), _limits(512, 200_000)]
    assert world.sizes == []


async def test_a_guest_that_keeps_its_memory_has_its_limits_back(world: World, tmp_path: Path) -> None:
    world.machine.fails = GuestError(Code.DEADLINE_EXCEEDED, "the guest gave back 0 of 256 MiB")
    with pytest.raises(StatusError, match="gave back 0 of 256 MiB") as caught:
        await world.update(_SHRINK)
    assert caught.value.code is Code.DEADLINE_EXCEEDED
    back = ["memory 512", "vcpus 2", _limits(512, 200_000)]
    assert world.told == [_limits(256, 50_000), "vcpus 1", "memory 256", *back]
    assert "could not be taken back" not in (tmp_path / "log").read_text()
    world.told.clear()
    await world.update(_GROW)
    assert world.told == ["vcpus 3", "memory 1024", _limits(1024, 300_000)]


async def test_a_machine_that_cannot_grow_leaves_the_limits_alone(world: World) -> None:
    world.machine.fails = GuestError(Code.DEADLINE_EXCEEDED, "the guest took 0 of 512 MiB")
    with pytest.raises(StatusError, match="took 0 of 512 MiB"):
        await world.update(_GROW)
    assert world.told == ["vcpus 3", "memory 1024", "memory 512", "vcpus 2"]


async def test_the_place_comes_first_and_is_taken_back(world: World) -> None:
    await world.update({"cpu": {"cpus": "1-3", "quota": 300_000}})
    told = 'limits {"cpu": {"quota": 300000, "cpus": "0-2"}}'
    assert world.told == ["place [1, 2, 3]", "vcpus 3", told]
    world.told.clear()
    world.vminitd.refuses["limits"] = StatusError(Code.INTERNAL, "no")
    with pytest.raises(StatusError, match="no"):
        await world.update({"cpu": {"cpus": "0"}})
    back = 'limits {"cpu": {"cpus": "0-2"}}'
    assert world.told == ["place [0]", 'limits {"cpu": {"cpus": "0"}}', back, "place [1, 2, 3]"]
    assert world.sizes == [Size(3, 512, frozenset({1, 2, 3}))]


async def test_what_cannot_be_taken_back_is_logged_and_the_first_failure_told(world: World, tmp_path: Path) -> None:
    world.machine.fails = GuestError(Code.DEADLINE_EXCEEDED, "the guest took 0 of 512 MiB")
    world.vminitd.refuses["vcpus 2"] = StatusError(Code.INTERNAL, "vCPU 2 does not go offline")
    with pytest.raises(StatusError, match="took 0 of 512 MiB"):
        await world.update(_GROW)
    text = (tmp_path / "log").read_text()
    assert "could not be taken back" in text
    assert "vCPU 2 does not go offline" in text


async def test_two_at_once_are_done_one_after_the_other(world: World) -> None:
    world.machine.may_resize.clear()
    updates = [asyncio.create_task(world.update({"memory": {"limit": mib * _MIB}})) for mib in (1024, 768)]
    done, _ = await asyncio.wait(updates, timeout=0.2)
    assert not done
    assert world.told == ["memory 1024"]
    world.machine.may_resize.set()
    await asyncio.gather(*updates)
    limits = [f'limits {{"memory": {{"limit": {mib * _MIB}}}}}' for mib in (1024, 768)]
    assert world.told == ["memory 1024", limits[0], limits[1], "memory 768"]


async def test_more_than_there_is_room_for_is_refused_before_anything_is_done(world: World) -> None:
    with pytest.raises(StatusError, match="2048 MiB") as caught:
        await world.update({"memory": {"limit": 3000 * _MIB}})
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    with pytest.raises(StatusError, match="not LinuxResources") as caught:
        await world.update({}, "somethingElse")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert world.told == []


@pytest.mark.parametrize("state", [State.CREATED, State.RUNNING, State.PAUSED])
async def test_as_long_as_it_has_not_ended(world: World, state: State) -> None:
    world.process.state = state
    await world.update({"pids": {"limit": 9}})
    assert world.told == ['limits {"pids": {"limit": 9}}']


async def test_a_container_that_has_ended_cannot_be_updated(world: World) -> None:
    world.process.exit = Exit(0, 1)
    world.process.state = State.STOPPED
    with pytest.raises(StatusError, match="cannot update container c: it is stopped") as caught:
        await world.update({"pids": {"limit": 9}})
    assert caught.value.code is Code.FAILED_PRECONDITION
    assert world.told == []


async def test_an_update_goes_on_when_its_caller_goes_away(world: World) -> None:
    """Half an update would be a machine and limits that do not fit each other."""
    world.machine.may_resize.clear()
    updating = asyncio.create_task(world.update(_GROW))
    while "memory 1024" not in world.told:
        await asyncio.wait((updating,), timeout=0.01)
    updating.cancel()
    world.machine.may_resize.set()
    await world.update({"pids": {"limit": 9}})
    assert world.told[2:] == [_limits(1024, 300_000), 'limits {"pids": {"limit": 9}}']
