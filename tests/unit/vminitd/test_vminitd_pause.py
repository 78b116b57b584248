"""A container is paused between starts, and its end does not meet it frozen; crun and freezing are fakes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import LEAVE_BEHIND, World
from vminitd import deadlines
from vminitd.cgroup import Cgroup
from vminitd.container import Container
from vminitd.errors import KernelError, StateError
from vminitd.freezer import Freezer
from vminitd.order import Order
from vminitd.rootfs import Plan
from vminitd.state import State
from vminitd.stdio import Wish

_WISH = Wish(False, b"", b"", b"")


class Frozen(Freezer):
    """Nothing is frozen: it is written down."""

    def __init__(self) -> None:
        super().__init__("container 'c'")
        self.done: list[str] = []
        self.may_freeze = asyncio.Event()
        self.may_freeze.set()
        self.begun = asyncio.Event()
        self.fails: KernelError | None = None

    async def freeze(self, cgroup: Cgroup, filesystems: tuple[str, ...], deadline_s: float) -> None:
        self.done.append("freeze")
        self.begun.set()
        if not self.may_freeze.is_set():
            await self.may_freeze.wait()
            raise StateError("container 'c' was not paused")

    async def thaw(self) -> None:
        self.done.append("thaw")
        self.may_freeze.set()
        if self.fails is not None:
            error, self.fails = self.fails, None
            raise error


class Paused:
    """A container whose first process runs, as far as it knows."""

    def __init__(self, world: World, freezer: Frozen, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vminitd.container.Freezer", lambda _name: freezer)
        monkeypatch.setattr(Cgroup, "kill", lambda _self, number: self.killed.append(number))
        self.killed: list[int] = []
        self.freezer = freezer
        machinery = world.machinery._replace(directory=str(world.bundle))
        self.container = Container(machinery, Order("c", b"{}", Plan((), None, False), _WISH, ()))
        self.init = self.container.init


@pytest.fixture
async def paused(world: World, host: DialledHost, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Paused]:
    made = Paused(world, Frozen(), monkeypatch)
    world.behave(LEAVE_BEHIND % "trap '' TERM; exec sleep 1000")
    stdio = await world.create(made.init)
    # The shell that stands for crun would reap a process that is killed before it has ended itself.
    await asyncio.gather(*world.machinery.crun._ending)
    for state in (State.STARTING, State.RUNNING):
        made.init.move(state)
    (world.bundle / "c/exec").mkdir(parents=True)
    yield made
    await made.init.reap(10)
    stdio.close()


async def test_pause_and_resume(paused: Paused) -> None:
    container, states = paused.container, [paused.init.state]
    await container.pause()
    states.append(container.init.state)
    for _ in range(2):  # the second makes sure
        await container.resume()
        states.append(container.init.state)
    assert states == [State.RUNNING, State.PAUSED, State.RUNNING, State.RUNNING]
    assert paused.freezer.done == ["freeze", "thaw", "thaw"]


async def test_only_what_runs_is_paused(paused: Paused) -> None:
    await paused.container.pause()
    with pytest.raises(StateError, match="is paused, and not running"):
        await paused.container.pause()
    with pytest.raises(StateError, match="is paused, and not running"):
        paused.container.add("e", b"{}", _WISH)


async def test_a_start_under_way_is_waited_for_and_no_other_begins(paused: Paused, world: World) -> None:
    container = paused.container
    for name in ("e", "f"):
        container.add(name, b"{}", _WISH)
    gate = world.bundle / "gate"
    os.mkfifo(gate)
    world.behave(f"read _ <{gate}; {LEAVE_BEHIND % 'exec sleep 1000'}")
    starting = asyncio.create_task(container.start("e"))
    held = await asyncio.to_thread(gate.open, "w")  # until crun is there
    pausing = asyncio.create_task(container.pause())
    await asyncio.sleep(0.05)
    with pytest.raises(StateError, match="is being paused"):
        await container.start("f")
    assert paused.freezer.done == []
    held.close()
    await starting
    await pausing
    assert paused.freezer.done == ["freeze"]
    await container.process("e").reap(10)


async def test_a_start_that_does_not_end_is_no_reason_to_wait_for_ever(
    paused: Paused, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "FREEZE", 0.1)
    container = paused.container
    container.add("e", b"{}", _WISH)
    world.behave("exec sleep 1000\n")
    starting = asyncio.create_task(container.start("e"))
    await asyncio.sleep(0.05)
    with pytest.raises(KernelError, match=r"still being started after 0\.1 s"):
        await container.pause()
    assert (container.init.state, paused.freezer.done) == (State.RUNNING, [])
    starting.cancel()
    await asyncio.wait([starting])


@pytest.mark.parametrize(("number", "thawed"), [(signal.SIGTERM, False), (signal.SIGKILL, True)])
@pytest.mark.parametrize("everyone", [False, True])
async def test_only_sigkill_thaws(paused: Paused, number: int, thawed: bool, everyone: bool) -> None:
    """It is sent before, so that nobody runs in between."""
    container = paused.container
    await container.pause()
    paused.freezer.fails = KernelError("cannot thaw") if thawed else None
    await container.kill("", number, everyone=everyone)
    assert paused.freezer.done == (["freeze", "thaw"] if thawed else ["freeze"])
    assert paused.killed == ([number] if everyone else [])
    if thawed and not everyone:
        assert (await container.init.wait()).status == 137


async def test_an_end_during_a_pause_wins(paused: Paused) -> None:
    container = paused.container
    paused.freezer.may_freeze.clear()
    pausing = asyncio.create_task(container.pause())
    await paused.freezer.begun.wait()
    await container.kill("", signal.SIGKILL, everyone=False)
    await container.init.gone.wait()
    with pytest.raises(StateError, match="was not paused"):
        await pausing
    assert container.init.state is State.STOPPED
    assert paused.freezer.done[-1] == "thaw"


async def test_a_resume_that_fails_leaves_it_paused(paused: Paused) -> None:
    await paused.container.pause()
    paused.freezer.fails = KernelError("cannot thaw")
    with pytest.raises(KernelError, match="cannot thaw"):
        await paused.container.resume()
    assert paused.container.init.state is State.PAUSED
    await paused.container.resume()
