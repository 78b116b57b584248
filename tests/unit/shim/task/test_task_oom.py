"""What containerd is told of processes that the guest's kernel has killed for want of memory."""

import pytest

from api import events_pb2, task_pb2
from shim.task import oom
from shim.task.oom import OomWatch
from tests.unit.shim.task.service_world import Shim, Told
from tests.unit.shim.task.world import ending, turns


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BEGIN_S", "_PAUSE_S", "_LONG_PAUSE_S"):
        monkeypatch.setattr(oom, name, 0.0)


async def _told(shim: Shim, count: int) -> None:
    """So many events of this kind come, and no more for now."""
    await turns()
    assert shim.told.names.count("TaskOOM") == count


async def test_each_change_is_one_event(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    world.vminitd.oom(1)
    await _told(shim, 1)
    world.vminitd.oom(4)  # three at once are one change
    await _told(shim, 2)
    assert shim.told.events[-1] == events_pb2.TaskOOM(container_id="c")


async def test_it_is_told_once_and_before_the_exit(shim: Shim) -> None:
    """Whichever of the two ways the guest's word takes first."""
    world = await shim.create()
    await shim.start()
    world.vminitd.ended.set_result(ending(137, oom_kills=1))
    await shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)
    world.vminitd.oom(1)
    await turns()
    assert shim.told.names == ["TaskCreate", "TaskStart", "TaskOOM", "TaskExit"]


async def test_the_guest_is_not_asked_before_the_start_nor_after_the_end(shim: Shim) -> None:
    world = await shim.create()
    await turns()
    assert world.vminitd.asked_for_kills == 0
    await shim.start()
    await turns()
    assert world.vminitd.asked_for_kills == 1
    world.vminitd.end(0)
    await shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)
    world.vminitd.oom(1)
    await turns()
    assert (world.vminitd.asked_for_kills, "TaskOOM" in shim.told.names) == (1, False)


async def test_a_guest_that_says_it_all_the_time_is_not_passed_on(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first few at once, then one a second; here, never again."""
    monkeypatch.setattr(oom, "_LONG_PAUSE_S", 1000.0)
    monkeypatch.setattr(oom, "_QUICK_EVENTS", 5)
    world = await shim.create()
    await shim.start()
    for kills in range(1, 50):
        world.vminitd.oom(kills)
        await turns()
    assert shim.told.names.count("TaskOOM") == 5
    assert world.vminitd.asked_for_kills == 5


async def test_a_guest_that_repeats_itself_says_nothing_new(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    world.vminitd.repeats_itself = True
    world.vminitd.oom(3)
    await _told(shim, 1)
    await turns()
    assert world.vminitd.asked_for_kills > 1
    assert shim.told.names.count("TaskOOM") == 1


async def test_events_that_nobody_takes_do_not_pile_up(shim: Shim) -> None:
    told = Told()
    watch = OomWatch("c", (await shim.create()).guest, told, shim.service.log)
    told.waiting_now = 100
    watch.hear(1)
    assert told.names == []
    told.waiting_now = 99
    watch.hear(2)
    assert told.names == ["TaskOOM"]


async def test_without_its_machine_nobody_is_asked(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    await turns()
    await world.server.close(0)
    world.vminitd.oom(1)
    await turns()
    assert "TaskOOM" not in shim.told.names
