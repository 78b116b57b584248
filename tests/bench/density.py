"""Many idle containers: what each takes, whether starts become slower, and whether all of them answer."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psutil

from harness.box import Box
from tests.bench import memory
from tests.bench.place import Place
from tests.bench.results import Density, Point
from tests.bench.turns import progress
from tests.bench.variants import Variant

POINTS: Final = (1, 10, 50)
_HELPERS: Final = 4
_DEADLINE_S: Final = 300.0
# Before more are started, this much more must be free than they are expected to take.
_MARGIN: Final = 1.25


def measure(place: Place, variant: Variant, points: Sequence[int]) -> Density:
    """Start as many as the last of `points` says, looking at their memory at each; ask all; end all."""
    box = place.box(variant)
    started: list[str] = []
    density = Density(starts_ms=[], points=[], answered=0, running=0)
    try:
        with place.configured(variant):
            for count in points:
                density.stopped = _too_much(density.points, count)
                if density.stopped:
                    break
                while len(started) < count:
                    progress(f"{variant.name}: {len(started) + 1} of {count} idle containers")
                    begin = time.perf_counter()
                    started.append(box.start("sleep", "1000000"))
                    density.starts_ms.append(round((time.perf_counter() - begin) * 1000, 1))
                density.points.append(memory.take(all_of(place), count))
        density.answered = _how_many_answer(box, started)
        density.running = sum(box.status(container) == "RUNNING" for container in started)
    finally:
        progress("")
        end(box, started)
    return density


def all_of(place: Place) -> list[psutil.Process]:
    """Every process that is there for the containers."""
    return [process for process in place.cell.processes() if process.pid != place.containerd.pid]


def _too_much(points: list[Point], count: int) -> str:
    """Why `count` would not fit into the host's memory, going by the last two points; empty if they do."""
    if len(points) < 2:
        return ""
    before, last = points[-2:]
    each = (sum(last.pss_mib.values()) - sum(before.pss_mib.values())) / (last.containers - before.containers)
    needed = each * (count - last.containers) * _MARGIN
    available = psutil.virtual_memory().available / (1 << 20)
    if needed <= available:
        return ""
    return f"{count} containers would need {needed:.0f} MiB more, and {available:.0f} MiB are available"


def _how_many_answer(box: Box, containers: Sequence[str]) -> int:
    def answers(container: str) -> bool:
        arguments = ("tasks", "exec", "--exec-id", "hello", container, "echo", container)
        return box.containerd.ctr(*arguments, deadline_s=_DEADLINE_S).text == container

    with ThreadPoolExecutor(_HELPERS) as pool:
        return sum(pool.map(answers, containers))


def end(box: Box, containers: Sequence[str]) -> None:
    """Remove them all."""

    def end_one(container: str) -> None:
        box.containerd.ctr("tasks", "delete", "-f", container, deadline_s=_DEADLINE_S)
        box.remove(container)

    with ThreadPoolExecutor(_HELPERS) as pool:
        for _ in pool.map(end_one, containers):
            pass
