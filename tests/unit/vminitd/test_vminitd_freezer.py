"""What is frozen in which order, and that nothing stays frozen unasked; cgroup and file system are fakes."""

import asyncio
import errno
import fcntl
import itertools
import socket
import threading
from pathlib import Path

import pytest

from vminitd import freeze
from vminitd.cgroup import Cgroup, changed_until
from vminitd.errors import KernelError, StateError
from vminitd.freezer import Freezer

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878


class FakeCgroup(Cgroup):
    """Freezes when it is told to."""

    def __init__(self, done: list[str]) -> None:
        super().__init__("/c")
        self.done = done
        self.freezes = asyncio.Event()
        self.freezes.set()
        self.begun = asyncio.Event()

    async def freeze(self) -> None:
        self.begun.set()
        await self.freezes.wait()
        self.done.append("processes frozen")

    def thaw(self) -> None:
        self.done.append("processes thawed")


class Filesystem:
    """What the system calls do with it. A call waits for `may_sync` or `may_freeze`, and fails once with its error."""

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.may_sync, self.may_freeze = threading.Event(), threading.Event()
        self.may_sync.set()
        self.may_freeze.set()
        self.syncing, self.freezing = threading.Event(), threading.Event()
        self.errors: dict[str, int] = {}

    def sync(self, _descriptor: int) -> None:
        self.syncing.set()
        assert self.may_sync.wait(20)
        self._end("synced")

    def control(self, _descriptor: int, command: int, _argument: int) -> None:
        if command == FIFREEZE:
            self.freezing.set()
            assert self.may_freeze.wait(20)
        self._end({FIFREEZE: "file system frozen", FITHAW: "file system thawed"}[command])

    def _end(self, what: str) -> None:
        if what in self.errors:
            raise OSError(self.errors.pop(what), "no")
        self.done.append(what)


class World:
    """A freezer of a container that is there."""

    def __init__(self, directory: Path) -> None:
        self.done: list[str] = []
        self.cgroup = FakeCgroup(self.done)
        self.filesystem = Filesystem(self.done)
        self.freezer = Freezer("container 'c'")
        self.paths: tuple[str, ...] = (str(directory),)

    async def last_call(self) -> None:
        """Return once no thread is at work on the file system any more."""
        if self.freezer._call is not None:
            await asyncio.wait([self.freezer._call])

    async def freeze(self, deadline_s: float = 20) -> None:
        await self.freezer.freeze(self.cgroup, self.paths, deadline_s)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(freeze, "sync_filesystem", made.filesystem.sync)
    monkeypatch.setattr(fcntl, "ioctl", made.filesystem.control)
    return made


_FROZEN = ["processes frozen", "synced", "file system frozen"]
_THAWED = ["file system thawed", "processes thawed"]


async def test_processes_first_and_last(world: World) -> None:
    for _ in range(2):
        await world.freeze()
        assert world.done == _FROZEN
        with pytest.raises(StateError, match="is frozen already"):
            await world.freeze()
        await world.freezer.thaw()
        assert world.done == _FROZEN + _THAWED
        world.done.clear()
    await world.freezer.thaw()  # once more is nothing
    assert world.done == []


async def test_without_a_file_system_to_write_to(world: World) -> None:
    world.paths = ()
    await world.freeze()
    await world.freezer.thaw()
    assert world.done == ["processes frozen", "processes thawed"]


async def test_several_file_systems(world: World) -> None:
    world.paths = (*world.paths, *world.paths)
    await world.freeze()
    await world.freezer.thaw()
    again = ["synced", "file system frozen"]
    assert world.done == [*_FROZEN, *again, "file system thawed", *_THAWED]


async def test_of_several_file_systems_one_cannot_be_frozen(world: World, tmp_path: Path) -> None:
    """Those before it are let go on."""
    world.paths = (*world.paths, str(tmp_path / "none"))
    with pytest.raises(KernelError, match="cannot freeze the file system of container 'c': No such file"):
        await world.freeze()
    assert world.done == [*_FROZEN, *_THAWED]


async def test_of_several_file_systems_one_cannot_be_thawed(world: World) -> None:
    """The others are, and the next attempt finds that one alone."""
    world.paths = (*world.paths, *world.paths)
    await world.freeze()
    world.filesystem.errors["file system thawed"] = errno.EIO
    world.done.clear()
    with pytest.raises(KernelError, match="cannot thaw container 'c'"):
        await world.freezer.thaw()
    assert world.done == ["file system thawed"]
    await world.freezer.thaw()
    assert world.done == ["file system thawed", *_THAWED]


async def test_processes_that_do_not_stop_are_let_go_on(world: World) -> None:
    world.cgroup.freezes.clear()
    with pytest.raises(KernelError, match=r"the processes of container 'c' did not stand still within 0\.05 s"):
        await world.freeze(0.05)
    assert world.done == ["processes thawed"]
    world.cgroup.freezes.set()
    await world.freeze()


@pytest.mark.parametrize("hangs", ["sync", "freeze"])
async def test_a_disk_that_hangs_is_told_of_and_leaves_nothing_frozen(world: World, hangs: str) -> None:
    """The call cannot be taken back: what it does in the end is undone by itself."""
    gate = world.filesystem.may_sync if hangs == "sync" else world.filesystem.may_freeze
    gate.clear()
    with pytest.raises(KernelError, match=r"the file system of container 'c' did not stand still within 0\.05 s"):
        await world.freeze(0.05)
    assert world.done[-1] == "processes thawed"
    with pytest.raises(KernelError, match="is still being written back for an earlier pause"):
        await world.freeze()
    gate.set()
    await world.last_call()
    await world.freezer.thaw()
    done = [what for what in world.done if what.startswith("file system")]
    assert done == ([] if hangs == "sync" else ["file system frozen", "file system thawed"])
    world.done.clear()
    await world.freeze()
    assert world.done[-1] == "file system frozen"


@pytest.mark.parametrize(
    ("what", "error"), [("synced", errno.EIO), ("file system frozen", errno.EOPNOTSUPP), ("file system frozen", 0)]
)
async def test_a_refusal_of_the_kernel_is_told_and_all_goes_on(world: World, what: str, error: int) -> None:
    world.filesystem.errors[what] = error
    with pytest.raises(KernelError, match="cannot freeze the file system of container 'c': no"):
        await world.freeze()
    assert world.done[-1] == "processes thawed"
    assert "file system frozen" not in world.done


async def test_one_that_is_frozen_already_is_left_to_whoever_froze_it(world: World) -> None:
    world.filesystem.errors["file system frozen"] = errno.EBUSY
    await world.freeze()
    await world.freezer.thaw()
    assert world.done == ["processes frozen", "synced", "processes thawed"]


async def test_one_that_was_thawed_by_others(world: World) -> None:
    await world.freeze()
    world.filesystem.errors["file system thawed"] = errno.EINVAL
    await world.freezer.thaw()
    assert world.done == [*_FROZEN, "processes thawed"]


async def test_what_cannot_be_thawed_stays_whole_and_is_tried_again(world: World) -> None:
    await world.freeze()
    world.filesystem.errors["file system thawed"] = errno.EIO
    with pytest.raises(KernelError, match="cannot thaw container 'c': no"):
        await world.freezer.thaw()
    assert world.done == _FROZEN
    await world.freezer.thaw()
    assert world.done == _FROZEN + _THAWED


@pytest.mark.parametrize("where", ["processes", "sync", "freeze"])
async def test_a_thaw_calls_off_a_freeze_at_any_moment(world: World, where: str) -> None:
    filesystem = world.filesystem
    gates: dict[str, asyncio.Event | threading.Event] = {
        "processes": world.cgroup.freezes,
        "sync": filesystem.may_sync,
        "freeze": filesystem.may_freeze,
    }
    gates[where].clear()
    freezing = asyncio.create_task(world.freeze())
    if where == "processes":
        await world.cgroup.begun.wait()
    else:
        begun = filesystem.syncing if where == "sync" else filesystem.freezing
        await asyncio.to_thread(begun.wait, 20)
    await asyncio.gather(world.freezer.thaw(), world.freezer.thaw())  # Resume and SIGKILL, say
    with pytest.raises(StateError, match="was not paused: it was resumed or killed meanwhile"):
        await freezing
    assert world.done[-1] == "processes thawed"
    gates[where].set()
    await world.last_call()
    assert [what for what in world.done if what.startswith("file system")] in ([], [*_FROZEN[2:], _THAWED[0]])
    world.done.clear()
    await world.freeze()
    assert world.done == _FROZEN


async def test_a_thaw_or_a_loss_of_the_caller_when_it_was_just_done(world: World) -> None:
    """At any turn of the loop around the end of the freeze: nothing is frozen, or the freeze has succeeded before."""
    world.paths = ()
    for turn, act in itertools.product(range(12), ("thaw", "cancel")):
        world.done.clear()
        freezing = asyncio.create_task(world.freeze())
        for _ in range(turn):
            await asyncio.sleep(0)
        if act == "thaw":
            await world.freezer.thaw()
            began = bool(world.done)
        else:
            freezing.cancel()
        (end,) = await asyncio.gather(freezing, return_exceptions=True)
        if act == "thaw" and not began:  # it was called before there was anything to thaw
            await world.freezer.thaw()
        if act == "cancel" and end is None:
            await world.freezer.thaw()
        assert not world.done or world.done[-1] == "processes thawed", (turn, act, end)


async def test_a_caller_that_goes_away_leaves_nothing_frozen(world: World) -> None:
    world.cgroup.freezes.clear()
    freezing = asyncio.create_task(world.freeze())
    await world.cgroup.begun.wait()
    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing
    assert world.done == ["processes thawed"]


async def test_a_change_that_the_kernel_tells_of_is_looked_at() -> None:
    """By POLLPRI, as of a cgroup's file; here of urgent data, tcp(7). Input alone says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        looks: list[bool] = []
        holds = False

        def look() -> bool:
            looks.append(holds)
            return holds

        waiting = asyncio.create_task(changed_until(server.fileno(), look))
        client.send(b"input")
        await asyncio.sleep(0.1)
        assert looks == [False]
        holds = True
        client.send(b"!", socket.MSG_OOB)
        await asyncio.wait_for(waiting, 20)
        assert looks == [False, True]
