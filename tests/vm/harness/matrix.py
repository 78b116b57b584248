"""Which tests run with which runtime on which containerd, and how workers share them out.

At every change all tests of qemubox run on the newest containerd, and those marked `every_containerd` on Debian's too:
what containerd itself has a part in (events, restarts, names, snapshots, loggers, how shims are started). runc, the
reference, runs on Debian's. `--matrix` is all on each, as before a release; so is what is asked for by `--containerd`.
"""

from collections.abc import Sequence
from typing import Final

import pytest

from harness.deadline import PATIENCE

NEWEST: Final = "2"
_REFERENCE: Final = {"qemubox": NEWEST, "runc": "1.6"}
# What takes longest begins first, or one worker would be at it long after the other has ended: processor seconds of
# files, measured on 2026-11-29 (2 cores, TCG). A file that is not here takes less than a minute.
_SECONDS: Final[dict[str, int]] = {}
_USUAL_S: Final = 30
# As long as a test may take that does not say: for itself on the machine, which it is not (pyproject.toml's is for unit
# tests).
_TIMEOUT_S: Final = 90


def runs(item: pytest.Item, *, matrix: bool) -> bool:
    """Whether the test runs, of those that each containerd and runtime make of it."""
    containerd, runtime = _where(item)
    if not containerd or not runtime:
        return True
    marked = item.get_closest_marker
    if (runtime, containerd) == ("runc", NEWEST) and not marked("newest_runc"):
        return False
    alone = (on := marked("on")) is not None and len(on.args) == 1
    return matrix or alone or marked("every_containerd") is not None or containerd == _REFERENCE[runtime]


def group(item: pytest.Item) -> str:
    """What one worker does in a row: a file's tests on one containerd with one runtime, which share fixtures."""
    return "-".join(word for word in (_file(item), *_where(item)) if word)


def share_out(items: list[pytest.Item]) -> None:
    """Give each test its group and enough time; the longest groups first, those of one containerd in a row.

    A worker has one containerd at a time, and each takes some seconds to make.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
        own = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(PATIENCE * (own.args[0] if own else _TIMEOUT_S)), append=False)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, bool, int, str]:
    """For sorting, which keeps the order of the tests of a group."""
    containerd, runtime = _where(item)
    seconds = _SECONDS.get(_file(item), _USUAL_S)
    return containerd == "1.6", runtime == "runc", -seconds, group(item)


def _where(item: pytest.Item) -> tuple[str, str]:
    """The containerd and the runtime; empty where a test has none."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return str(parameters.get("containerd", "")), str(parameters.get("runtime", ""))


def _file(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def measured() -> Sequence[str]:
    """The files that are known to take long; each is there (tests/unit/harness)."""
    return [*_SECONDS]
