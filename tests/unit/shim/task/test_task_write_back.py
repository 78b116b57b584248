"""When changes come back: in Pause, and before an end is told; what fails, and what is kept then."""

import asyncio
import contextlib
import os
from pathlib import Path
from typing import cast

import pytest

from api import guest_pb2, task_pb2, task_types_pb2
from shim.changes.target import Kind, Target
from shim.changes.write_back import Applied, WriteBack
from shim.errors import HostError, MachineError, QemuboxError, ResourceError
from shim.guest import Guest
from shim.journal import Journal
from shim.log import Logger
from shim.rootfs.place import Place
from shim.rootfs.prepare import PreparedRootfs
from shim.spec import Json
from shim.task.write_back import Changes, is_wanted
from tests.unit.shim.task.exec_calls import delete, refused, running, state, told, wait
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import World, turns
from ttrpc import Code


class Host:
    """A snapshot, its place, and write-backs that do what the test says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.upper = root / "snapshots" / "1" / "fs"
        self.upper.mkdir(parents=True)
        self.places = root / "data"
        self.error: BaseException | None = None
        self.applied = Applied()
        self.may_run = asyncio.Event()
        self.may_run.set()
        self.began = asyncio.Event()
        self.runs: list[str] = []
        self.rootfs: PreparedRootfs | None = None

    def rootfs_for_a_start(self) -> PreparedRootfs:
        """As prepare makes it."""
        place = Place.claim(self.places, self.upper, Journal(self.root))
        if not place.taken_up:
            place.image.touch()
        stack = contextlib.ExitStack()
        stack.callback(place.close)
        fd = os.open(place.image, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        target = Target(self.upper, Kind.OVERLAY, True, fd, place.record)
        self.rootfs = PreparedRootfs((), guest_pb2.Rootfs(), target, place, False, stack)
        return self.rootfs

    @property
    def kept(self) -> bool:
        """Whether the image is there after the container's end."""
        assert self.rootfs is not None
        self.rootfs.close()
        return bool(list(self.places.glob("*/writable.ext4")))

    async def run(self, deadline_s: float) -> Applied:
        """In the place of WriteBack.run."""
        assert deadline_s > 0
        self.runs.append("begun")
        self.began.set()
        try:
            await self.may_run.wait()
        except asyncio.CancelledError:
            self.runs[-1] = "called off"
            raise
        if self.error is not None:
            self.runs[-1] = "failed"
            raise self.error
        self.runs[-1] = "done"
        return self.applied


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shim: Shim, log: Logger) -> Host:
    made = Host(tmp_path)

    async def run(_write_back: WriteBack, deadline_s: float) -> Applied:
        return await made.run(deadline_s)

    monkeypatch.setattr(WriteBack, "run", run)

    def changes(container_id: str, guest: Guest) -> Changes:
        return Changes(container_id, guest, made.rootfs_for_a_start(), enabled=True, log=log)

    shim.made.new_changes = changes
    return made


async def _pause(shim: Shim) -> None:
    await shim.task.Pause(task_pb2.PauseRequest(id="c"), timeout_s=20)


async def _resume(shim: Shim) -> None:
    await shim.task.Resume(task_pb2.ResumeRequest(id="c"), timeout_s=20)


async def _until_begun(host: Host, count: int = 1) -> None:
    while len(host.runs) < count:
        host.began.clear()
        await host.began.wait()


async def _pausing(shim: Shim, host: Host) -> tuple[World, asyncio.Task[None]]:
    """A Pause whose changes are on their way."""
    world = await running(shim)
    host.may_run.clear()
    pausing = asyncio.create_task(_pause(shim))
    await _until_begun(host)
    return world, pausing


async def test_they_come_back_in_a_pause_before_it_is_answered(shim: Shim, host: Host) -> None:
    _, pausing = await _pausing(shim, host)
    assert (await state(shim, "")).status == task_types_pb2.PAUSING
    assert not pausing.done()
    host.may_run.set()
    await pausing
    assert (host.runs, (await state(shim, "")).status) == (["done"], task_types_pb2.PAUSED)
    await _resume(shim)
    assert host.kept


async def test_a_pause_fails_where_they_do_not_and_the_container_runs_on(shim: Shim, host: Host) -> None:
    world = await running(shim)
    errors: list[tuple[QemuboxError, Code]] = [
        (ResourceError("/snapshots: No space left on device"), Code.RESOURCE_EXHAUSTED),
        (HostError("/snapshots: Input/output error"), Code.INTERNAL),
    ]
    for error, code in errors:
        host.error = error
        await refused(_pause(shim), code, error.message)
        assert (await state(shim, "")).status == task_types_pb2.RUNNING
    assert world.vminitd.pauses == ["pause", "resume"] * 2
    assert "TaskPaused" not in told(shim)
    host.error = None
    await _pause(shim)
    assert host.runs == ["failed", "failed", "done"]


async def test_they_come_back_before_the_end_is_told(shim: Shim, host: Host) -> None:
    world = await running(shim)
    host.may_run.clear()
    world.vminitd.end(3)
    await _until_begun(host)
    waiting = asyncio.create_task(wait(shim, ""))
    await turns()
    assert not waiting.done()
    assert "TaskExit c" not in told(shim)
    host.may_run.set()
    assert await waiting == 3
    assert not host.kept


async def test_an_end_is_told_all_the_same_and_the_image_kept(shim: Shim, host: Host) -> None:
    world = await running(shim)
    host.error = ResourceError("/snapshots: No space left on device")
    world.vminitd.end(3)
    assert await wait(shim, "") == 3
    await delete(shim, "")
    assert host.kept
    assert host.rootfs_for_a_start().place is not None
    assert host.rootfs
    assert host.rootfs.place
    assert host.rootfs.place.taken_up
    host.rootfs.close()


@pytest.mark.parametrize("error", [MachineError("QEMU is gone"), ZeroDivisionError("a mistake of ours")])
async def test_whatever_goes_wrong_at_an_end(shim: Shim, host: Host, error: Exception) -> None:
    world = await running(shim)
    host.error = error
    world.vminitd.end(0)
    assert await wait(shim, "") == 0
    assert host.kept


async def test_the_end_wins_over_a_pause(shim: Shim, host: Host) -> None:
    """SIGKILL at that moment: the Pause is called off, and what comes back is what there is at the end."""
    world, pausing = await _pausing(shim, host)
    world.vminitd.dies_of_sigkill = True
    await shim.task.Kill(task_pb2.KillRequest(id="c", signal=9), timeout_s=20)
    await _until_begun(host, 2)
    await refused(pausing, Code.FAILED_PRECONDITION, "ended while it was being paused")
    host.may_run.set()
    assert await wait(shim, "") == 137
    assert host.runs == ["called off", "done"]
    assert world.vminitd.pauses == ["pause"]
    assert "TaskPaused" not in told(shim)
    assert not host.kept


async def test_a_resume_waits_for_the_pause(shim: Shim, host: Host) -> None:
    _, pausing = await _pausing(shim, host)
    resuming = asyncio.create_task(_resume(shim))
    await turns()
    assert not resuming.done()
    host.may_run.set()
    await pausing
    await resuming
    assert host.runs == ["done"]


async def test_one_that_was_never_started_has_nothing_to_come_back(shim: Shim, host: Host) -> None:
    world = await shim.create()
    world.vminitd.dies_of_sigkill = True
    await delete(shim, "")
    assert host.runs == []
    assert not host.kept


async def test_one_that_is_killed_before_its_start_has_come_to_it_leaves_no_image(shim: Shim, host: Host) -> None:
    """Nothing was written to it, and nobody would bring that back."""
    asked, settled = asyncio.Event(), asyncio.Event()

    async def network() -> None:
        asked.set()
        await settled.wait()

    shim.made.before_start = network
    world = await shim.create()
    starting = asyncio.create_task(shim.task.Start(task_pb2.StartRequest(id="c"), timeout_s=20))
    await asked.wait()
    world.vminitd.end(137)
    await wait(shim, "")
    settled.set()
    await refused(starting, Code.FAILED_PRECONDITION, "cannot start container c: it has ended")
    assert world.vminitd.starts == 0
    await delete(shim, "")
    assert not host.kept


async def test_what_an_earlier_start_wrote_comes_back_without_another(shim: Shim, host: Host) -> None:
    place = host.rootfs_for_a_start().place
    assert place is not None
    place.begin()
    assert host.kept
    world = await shim.create()
    world.vminitd.dies_of_sigkill = True
    await delete(shim, "")
    assert host.runs == ["done"]
    assert not host.kept


async def test_switched_off_nothing_comes_back_and_the_image_goes(shim: Shim, host: Host, log: Logger) -> None:
    def changes(container_id: str, guest: Guest) -> Changes:
        return Changes(container_id, guest, host.rootfs_for_a_start(), enabled=False, log=log)

    shim.made.new_changes = changes
    world = await running(shim)
    await _pause(shim)
    await _resume(shim)
    world.vminitd.end(0)
    assert await wait(shim, "") == 0
    assert host.runs == []
    assert not host.kept


async def test_a_delete_that_does_not_wait_for_them_waits_until_nobody_reads_the_image(
    host: Host, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads it by its descriptor, whose number is another file's once it is closed."""
    over = asyncio.Event()

    async def slow_to_stop(_write_back: WriteBack, _deadline_s: float) -> Applied:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            over.set()
        raise AssertionError

    monkeypatch.setattr(WriteBack, "run", slow_to_stop)
    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    changes.begin()
    ending = asyncio.create_task(changes.ended())
    await asyncio.sleep(0.05)
    for _ in range(2):
        ending.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([ending])
    assert ending.cancelled()
    assert over.is_set()
    assert host.kept


async def test_a_copy_that_does_not_come_back_is_kept_also_when_the_end_before_it_did(host: Host, log: Logger) -> None:
    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    changes.begin()
    host.may_run.clear()
    ending = asyncio.create_task(changes.ended())
    await _until_begun(host)
    copying = asyncio.create_task(changes.copied_into())
    await turns()
    host.may_run.set()
    await ending
    host.error = HostError("no")
    with pytest.raises(HostError):
        await copying
    assert host.runs == ["done", "failed"]
    assert host.kept


async def test_a_start_that_could_not_keep_the_image_is_tried_again(
    host: Host, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Place) -> None:
        raise HostError("read-only file system")

    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    with monkeypatch.context() as patch:
        patch.setattr(Place, "begin", refuse)
        with pytest.raises(HostError):
            changes.begin()
    changes.begin()
    assert host.kept


async def test_a_pause_says_what_failed_where_the_snapshot_has_been_removed(host: Host, log: Logger) -> None:
    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    changes.begin()
    host.upper.rmdir()
    host.error = HostError("no such directory")
    with pytest.raises(HostError, match="no such directory"):
        await changes.paused()
    await changes.ended()


async def test_what_is_copied_into_one_that_has_ended_comes_back(host: Host, log: Logger) -> None:
    """By a run of its own; where that fails the image is kept."""
    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    changes.begin()
    await changes.copied_into()
    assert host.runs == []
    await changes.ended()
    await changes.copied_into()
    assert host.runs == ["done", "done"]
    host.error = HostError("no")
    with pytest.raises(HostError):
        await changes.copied_into()
    assert host.kept


@pytest.mark.parametrize("copied", [False, True])
async def test_what_is_copied_into_one_that_is_not_started_comes_back(host: Host, log: Logger, copied: bool) -> None:
    changes = Changes("c", cast("Guest", None), host.rootfs_for_a_start(), enabled=True, log=log)
    if copied:
        await changes.copied_into()
    await changes.ended()
    assert host.runs == ["done"] * copied
    assert not host.kept


def test_whose_changes_come_back() -> None:
    pod: Json = {"annotations": {"io.kubernetes.cri.container-type": "container"}}
    other: Json = {"annotations": {"a": "b"}}
    assert [is_wanted("auto", document) for document in ({}, other, pod)] == [True, True, False]
    assert (is_wanted("always", pod), is_wanted("never", {})) == (True, False)
