"""What is said of the steps: a line while they run, the failures once more, and the last lines. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_PROGRESS: Final = re.compile(r"\[ *(\d+)%\]")
# pytest's short summary, ruff's and mypy's faults.
_FAULT: Final = re.compile(r"(FAILED|ERROR) .*|\S+\.py:\d+(:\d+)?: .*")
_FAULTS: Final = 25


@dataclass(frozen=True)
class Ended:
    """A step that is over. `problem` is empty where it succeeded; `log` is what it said, `path` where that is kept."""

    name: str
    is_lane: bool
    seconds: float
    problem: str = ""
    path: str = ""
    log: str = ""


def clock(seconds: float) -> str:
    """Minutes and seconds: 3:07."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


def under_way(name: str, seconds: float, said: str) -> str:
    """A step that runs, with how far pytest says it is."""
    progress = _PROGRESS.findall(said)
    return f"{name} {clock(seconds)}" + (f" ({progress[-1]} %)" if progress else "")


def faults(log: str) -> list[str]:
    """The lines that name what failed, or the last ones if there are none."""
    found = [line for line in log.splitlines() if _FAULT.fullmatch(line)]
    if len(found) > _FAULTS:
        return [*found[:_FAULTS], f"and {len(found) - _FAULTS} more"]
    return found or log.splitlines()[-5:]


def summary(ended: Sequence[Ended], seconds: float) -> list[str]:
    """The faults of what failed, a line for each lane and for what was built, and one that says it all."""
    failed = [each for each in ended if each.problem]
    lines = []
    for each in failed:
        lines += [f"{each.name}: {each.problem}", *(f"  {line}" for line in faults(each.log))]
    built = [each for each in ended if not each.is_lane]
    if built:
        longest = sorted(built, key=lambda each: -each.seconds)
        shown = ", ".join(f"{each.name} {clock(each.seconds)}" for each in longest if each.seconds >= 10)
        lines.append(_line("build", [each for each in built if each.problem], shown and f"({shown})"))
    for each in (each for each in ended if each.is_lane):
        lines.append(_line(each.name, [each] if each.problem else [], clock(each.seconds), each.path))
    verdict = f"failed: {', '.join(each.name for each in failed)}" if failed else "all passed"
    return [*lines, f"in {clock(seconds)}: {verdict}"]


def _line(name: str, failed: Iterable[Ended], *words: str) -> str:
    verdict = "FAILED" if list(failed) else "passed"
    return " ".join(word for word in (f"{name:<6}", verdict, *words) if word)
