"""Whole `ctr run`s as a user types them: one after the other, and several at once; and the phases of each machine."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from deploy import phases
from tests.bench.figures import median_marks
from tests.bench.place import Place
from tests.bench.results import Results
from tests.bench.turns import measure
from tests.bench.variants import Variant

AT_ONCE: Final = (1, 2, 4, 8)
_TIMELINE: Final = "/run/qemubox/timeline.jsonl"
_DEADLINE_S: Final = 300.0


class _Run(NamedTuple):
    took_ms: float
    # The marks since Create and in the guest; empty for runc.
    host: dict[str, float]
    guest: dict[str, float]


def one_by_one(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """`ctr run --rm … true`, and from the same runs how long the machine took."""
    by_name = {variant.name: variant for variant in variants}

    def run(name: str, _number: int) -> _Run:
        variant = by_name[name]
        box = place.box(variant)
        container = box.new_id()
        with place.configured(variant):
            log_offset = place.containerd.log_size()
            begin = time.perf_counter()
            box.run("true", container=container, deadline_s=_DEADLINE_S).checked()
            took_ms = _since(begin)
        if not variant.is_vm:
            return _Run(took_ms, {}, {})
        found = _marks(place.cell.path(_TIMELINE), container)
        assert not (reason := place.why_another(variant, log_offset)), f"{variant.name}: {reason}"
        return _Run(took_ms, found["phases"], phases.own(found["phases"], found["guest"]))

    for name, found in measure([*by_name], runs, "ctr run", run).items():
        results.end_to_end_ms[name] = [each.took_ms for each in found]
        if by_name[name].is_vm:
            results.boot_ms[name] = [machine_ms(each.host) for each in found]
            results.boot_and_wait_ms[name] = [machine_ms(each.host, idle=True) for each in found]
            results.host_marks_ms[name] = median_marks([each.host for each in found])
            results.guest_marks_ms[name] = median_marks([each.guest for each in found])


def machine_ms(marks: dict[str, float], *, idle: bool = False) -> float:
    """From QEMU's exec to vminitd's answer, by which the machine has its disks, its memory and its name.

    The machine stands paused until Create has found out what its disks are: that counts only with `idle`.
    """
    took = marks["answered"] - marks["spawned"]
    if not idle:
        took -= marks["furnishing"] - marks.get("restored", marks["paused"])
    return round(took, 1)


def at_once(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """1, 2, 4, 8 of the same at once: the time until all have ended. A cold boot is nobody's everyday start."""
    chosen = {variant.name: variant for variant in variants if variant.start != "cold"}

    for count in AT_ONCE:

        def run(name: str, _number: int, count: int = count) -> float:
            box = place.box(chosen[name])
            with place.configured(chosen[name]), ThreadPoolExecutor(count) as pool:
                begin = time.perf_counter()
                for ended in pool.map(lambda _: box.run("true", deadline_s=_DEADLINE_S), range(count)):
                    ended.checked()
                return _since(begin)

        for name, found in measure([*chosen], runs, f"{count} at once", run).items():
            results.at_once_ms.setdefault(name, {})[count] = found


def _marks(timeline: Path, container: str) -> dict[str, dict[str, float]]:
    """The container's line, which may be in the file before if this one has just become full."""
    try:
        return phases.find(timeline, "default", container)
    except LookupError:
        return phases.find(timeline.with_name(f"{timeline.name}.1"), "default", container)


def _since(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1000, 1)
