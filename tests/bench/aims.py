"""What the project wants to reach, against what was measured. Pure.

A figure that is not reached is told as it was measured; one that could not be measured is
told as that.
"""

from dataclasses import dataclass
from typing import Final

from tests.bench.commands import PYTHON
from tests.bench.figures import growth, ratio
from tests.bench.layers import MANY as MANY_LAYERS
from tests.bench.results import Results

# How many containers at once are to answer.
MANY: Final = 50


@dataclass(frozen=True)
class Aim:
    """One line: `measured` is to be at most, or at least, `limit`; None where it was not measured."""

    name: str
    measured: float | None
    limit: float
    at_most: bool
    unit: str = ""

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.measured is None:
            return "not measured"
        return "reached" if (self.measured <= self.limit if self.at_most else self.measured >= self.limit) else "missed"

    @property
    def wanted(self) -> str:
        """The aim as people write it."""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}{self.unit}"


def aims(results: Results) -> list[Aim]:
    """Every aim, in the order of the report."""
    boot, whole, commands = results.boot_ms, results.end_to_end_ms, results.commands_ms

    def cold_by_clone(memory: str) -> float | None:
        return ratio(boot.get(f"cold, {memory}", []), boot.get(f"clone, {memory}", []))

    def by_python(command: str) -> float | None:
        return ratio(commands.get(command, []), commands.get(PYTHON, []))

    def by_runc(name: str) -> float | None:
        return ratio(whole.get(name, []), whole.get("runc", []))

    def by_one_layer(name: str) -> float | None:
        found = results.layers_ms.get(name, {})
        return ratio(found.get(MANY_LAYERS, []), found.get(1, []))

    machine = "QEMU's exec until vminitd answers, cold ÷ clone"
    memory = "memory of an idle container beyond the first"
    return [
        Aim(f"{machine}, private memory", cold_by_clone("private"), 15, at_most=False),
        Aim(f"{machine}, shared memory", cold_by_clone("shared"), 8, at_most=False),
        Aim("`ctr run`, clone with private memory ÷ runc", by_runc("clone, private"), 4, at_most=True),
        Aim("`ctr run`, clone with shared memory ÷ runc", by_runc("clone, shared"), 4, at_most=True),
        Aim(f"`ctr run`, {MANY_LAYERS} layers ÷ one", by_one_layer("clone, private"), 2, at_most=True),
        Aim(f"`delete` ÷ `{PYTHON}`", by_python("delete"), 3, at_most=True),
        Aim(f"`-info` ÷ `{PYTHON}`", by_python("-info"), 3, at_most=True),
        Aim(f"{memory}, private", _memory_each(results, "clone, private"), 32, at_most=True, unit=" MiB"),
        Aim(f"{memory}, shared", _memory_each(results, "clone, shared"), 80, at_most=True, unit=" MiB"),
        Aim(f"of {MANY} at once, answer and run: private", _answered(results, "clone, private"), MANY, at_most=False),
        Aim(f"of {MANY} at once, answer and run: shared", _answered(results, "clone, shared"), MANY, at_most=False),
    ]


def _memory_each(results: Results, name: str) -> float | None:
    """MiB that each container adds: PSS, in which no page is counted twice nor left out because two have it."""
    if name not in results.density or len(results.density[name].points) < 2:
        return None
    points = results.density[name].points
    first, last = points[0], points[-1]
    return growth(sum(first.pss_mib.values()), sum(last.pss_mib.values()), last.containers - first.containers + 1)


def _answered(results: Results, name: str) -> float | None:
    density = results.density.get(name)
    if density is None or not density.points or density.points[-1].containers < MANY:
        return None
    return min(density.answered, density.running)
