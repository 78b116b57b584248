"""Stats, asked again and again: how long an answer takes, and what it costs the host's processors.

The containers are idle and containerd's, the questions go to their shims' sockets: nothing of containerd is in these
figures. One question a second for each container, spread over that second, as a monitor asks them; what the same
processes use in as many seconds without a question is taken off. A second client asks one container without a pause,
which shows what a shim can give away without asking its guest.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from typing import Final

import psutil

from api import task_pb2
from tests.bench import processor
from tests.bench.density import all_of, end
from tests.bench.place import Place
from tests.bench.results import Polls
from tests.bench.shim import Task, connect
from tests.bench.turns import progress
from tests.bench.variants import Variant

POINTS: Final = (1, 50)
SECONDS: Final = 20
_BUNDLES: Final = "/run/containerd/io.containerd.runtime.v2.task/default"
# containerd 2 keeps what `start` has answered; the shims that containerd 1 asks for a plain address keep that.
_ANSWERS: Final = ("bootstrap.json", "address")
# Questions before those that count: the first of a guest's life is dear.
_WARM_UP: Final = 3
_LOOP_S: Final = 2.0


def measure(place: Place, variant: Variant, points: Sequence[int], seconds: int) -> list[Polls]:
    """At each of `points` containers, `seconds` questions to each."""
    box = place.box(variant)
    started: list[str] = []
    found: list[Polls] = []
    try:
        with place.configured(variant):
            for count in points:
                while len(started) < count:
                    progress(f"{variant.name}: {len(started) + 1} of {count} containers to ask")
                    started.append(box.start("sleep", "1000000"))
                progress(f"{variant.name}: {seconds} questions to each of {count}")
                found.append(asyncio.run(_ask(place, started, seconds)))
    finally:
        progress("")
        end(box, started)
    return found


async def _ask(place: Place, containers: Sequence[str], seconds: int) -> Polls:
    tasks = [await connect(place, _answer(place, container), container) for container in containers]
    processes = all_of(place)
    try:
        for _ in range(_WARM_UP):
            await _rounds(tasks, 1)
        idle = await _used(processes, asyncio.sleep(seconds))
        answers_ms: list[float] = []
        busy = await _used(processes, _rounds(tasks, seconds, answers_ms))
        per_second = await _without_pause(tasks[0])
    finally:
        for task in tasks:
            await task.close()
    polls = len(tasks) * seconds
    processor_ms = {name: round((busy[name] - idle[name]) / polls, 3) for name in busy}
    return Polls(len(tasks), answers_ms, processor_ms, per_second)


def _answer(place: Place, container: str) -> bytes:
    """What `start` has said of the container's shim."""
    bundle = place.cell.path(f"{_BUNDLES}/{container}")
    return next(path for name in _ANSWERS if (path := bundle / name).exists()).read_bytes()


async def _used(processes: Sequence[psutil.Process], doing: Awaitable[None]) -> dict[str, float]:
    """Milliseconds of the processor's that `processes` use meanwhile, by kind."""
    before = processor.by_kind(processes)
    await doing
    after = processor.by_kind(processes)
    return {name: after[name] - before[name] for name in after}


async def _rounds(tasks: Sequence[Task], seconds: int, answers_ms: list[float] | None = None) -> None:
    """Each of `tasks` once a second."""
    begin = time.perf_counter()
    asking = []
    for number in range(len(tasks) * seconds):
        await asyncio.sleep(begin + number / len(tasks) - time.perf_counter())
        asking.append(asyncio.create_task(_one(tasks[number % len(tasks)])))
    took = await asyncio.gather(*asking)
    await asyncio.sleep(begin + seconds - time.perf_counter())
    if answers_ms is not None:
        answers_ms += took


async def _one(task: Task) -> float:
    begin = time.perf_counter()
    reply = await task.call("Stats", task_pb2.StatsRequest(id=task.container_id), task_pb2.StatsResponse)
    assert reply.stats.value
    return round((time.perf_counter() - begin) * 1000, 2)


async def _without_pause(task: Task) -> float:
    """Answers a second to a client that asks again as soon as it has one."""
    begin, count = time.perf_counter(), 0
    while time.perf_counter() < begin + _LOOP_S:
        await _one(task)
        count += 1
    return round(count / (time.perf_counter() - begin), 1)
