"""Stats, over real ttrpc on both sides; only the machine is a stand-in."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from api import metrics_pb2, task_pb2, task_types_pb2
from shim.errors import GuestError, HostError
from shim.log import Logger
from shim.network.counters import Counters
from shim.task.stats import FRESH_S, Statistics
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import World, turns
from ttrpc import Code, StatusError


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
async def world(log: Logger) -> AsyncIterator[World]:
    made = World(log)
    yield made
    await made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def statistics(world: World, clock: Clock) -> Statistics:
    return Statistics("c", world.guest, clock)


async def _stats(shim: Shim) -> metrics_pb2.Metrics:
    reply = await shim.task.Stats(task_pb2.StatsRequest(id="c"), timeout_s=20)
    assert reply.stats.type_url == "io.containerd.cgroups.v2.Metrics"
    return metrics_pb2.Metrics.FromString(reply.stats.value)


async def test_what_the_guest_says_is_told_under_the_bare_name(shim: Shim) -> None:
    world = await shim.create()
    world.vminitd.files = {"pids.current": b"3\n", "memory.max": b"max\n"}
    found = await _stats(shim)
    assert (found.pids.current, found.memory.usage_limit) == (3, (1 << 64) - 1)
    assert found.HasField("io")


async def test_created_running_and_stopped_all_have_figures(shim: Shim) -> None:
    world = await shim.create()
    await _stats(shim)
    await shim.start()
    await _stats(shim)
    world.vminitd.end(0)
    await shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)
    await _stats(shim)
    assert (await shim.task.State(task_pb2.StateRequest(id="c"))).status == task_types_pb2.STOPPED


async def test_without_its_machine_a_container_has_none(shim: Shim) -> None:
    world = await shim.create()
    await shim.start()
    world.died.set_result(MachineExit(Cause.KILLED, -9))
    await shim.task.Wait(task_pb2.WaitRequest(id="c"), timeout_s=20)
    with pytest.raises(StatusError, match=r"container c has no cgroup any more: .* gone") as caught:
        await shim.task.Stats(task_pb2.StatsRequest(id="c"), timeout_s=20)
    assert caught.value.code is Code.NOT_FOUND


async def test_many_who_ask_at_once_are_one_question(world: World, statistics: Statistics) -> None:
    world.vminitd.may_tell.clear()
    asking = [asyncio.create_task(statistics.read()) for _ in range(20)]
    await turns()
    world.vminitd.may_tell.set()
    assert len({answer.value for answer in await asyncio.gather(*asking)}) == 1
    assert world.vminitd.stats == 1


async def test_an_answer_is_given_again_for_a_moment(world: World, clock: Clock, statistics: Statistics) -> None:
    world.vminitd.files = {"pids.current": b"1"}
    first = await statistics.read()
    world.vminitd.files = {"pids.current": b"2"}
    clock.now_s += FRESH_S * 0.9
    assert await statistics.read() == first
    assert world.vminitd.stats == 1
    clock.now_s += FRESH_S * 0.2
    assert await statistics.read() != first
    assert world.vminitd.stats == 2


async def test_who_goes_away_leaves_the_answer_to_the_others(world: World, statistics: Statistics) -> None:
    world.vminitd.may_tell.clear()
    first, second = (asyncio.create_task(statistics.read()) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    world.vminitd.may_tell.set()
    assert (await second).type_url
    assert world.vminitd.stats == 1


async def test_a_guest_that_says_nothing_is_given_up(
    world: World, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shim.deadlines.GUEST_STATS_S", 0.05)
    world.vminitd.may_tell.clear()
    with pytest.raises(GuestError, match=r"did not answer within 0\.05 s"):
        await statistics.read()
    world.vminitd.may_tell.set()
    assert (await statistics.read()).type_url


async def test_with_what_the_host_has_counted(world: World, clock: Clock) -> None:
    """Read beside the loop, and no more often than the guest is asked."""
    threads = []

    def read() -> list[Counters]:
        threads.append(threading.current_thread())
        return [Counters("eth0", rx_bytes=7, tx_dropped=2), Counters("eth1")]

    statistics = Statistics("c", world.guest, clock, read)
    for _ in range(2):
        found = metrics_pb2.Metrics.FromString((await statistics.read()).value)
        assert [(each.name, each.rx_bytes, each.tx_dropped) for each in found.network] == [
            ("eth0", 7, 2),
            ("eth1", 0, 0),
        ]
    (thread,) = threads
    assert thread is not threading.main_thread()


async def test_counters_that_cannot_be_read(world: World, clock: Clock) -> None:
    def fail() -> list[Counters]:
        raise HostError("the counters of the network cannot be read: no")

    with pytest.raises(HostError, match="counters"):
        await Statistics("c", world.guest, clock, fail).read()
