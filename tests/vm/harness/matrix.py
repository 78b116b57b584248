"""Which tests run with which runtime on which containerd, and how workers share them out.

At every change the tests of qemubox run on the newest containerd, but those marked `release`, and the cases of a test
between its first and its last where it has more (`each_case`: all of them). What containerd itself has a part in,
marked `every_containerd`, runs on Debian's too, and with runc, the reference, beside it; so do the rows of the
conformance table, and what is ours upon runc's containers. What else runc does is not changed by what is changed here.
`--matrix` is all on each, as before a release; so is what is asked for by `--containerd` or `--runtime`. A file or a
test that is named runs whole.
"""

import re
from collections.abc import Sequence
from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from harness.deadline import PATIENCE

NEWEST: Final = "2"
# In a test's name, among its other parameters.
_PLACE: Final = re.compile(r"[\[-]c(1\.6|2)-(qemubox|runc)(?=[\]-])")
# What takes longest begins first, or one worker would be at it long after the other has ended: processor seconds of
# files, measured on 2026-11-29 (2 cores, TCG). A file that is not here takes less than those.
_SECONDS: Final[dict[str, int]] = {
    "big_guest": 200,
    "conformance": 125,
    "machine": 60,
    "vm_ends": 50,
    "faults_in_flight": 40,
    "links": 40,
    "refusals": 40,
    "commit": 35,
    "faults": 35,
    "kept_images": 35,
    "pause": 35,
}
_USUAL_S: Final = 20
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
    if matrix or marked("every_containerd"):
        return True
    if runtime == "runc":
        # `runc`: what is tried is ours, upon its containers.
        wanted = _file(item) == "conformance" or (isinstance(item, pytest.Function) and "runc" in item.fixturenames)
        return wanted and containerd != NEWEST
    alone = (on := marked("on")) is not None and len(on.args) == 1
    return alone or containerd == NEWEST


def at_every_change(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Those that are not for a release alone; of a test's cases with one runtime on one containerd, first and last."""
    cases: dict[tuple[str, ...], list[pytest.Item]] = {}
    for item in items:
        cases.setdefault((item.nodeid.partition("[")[0], *_where(item)), []).append(item)
    middle = {item for found in cases.values() for item in found[1:-1]}
    return [
        item
        for item in items
        if not item.get_closest_marker("release") and (item not in middle or item.get_closest_marker("each_case"))
    ]


def group(nodeid: str) -> str:
    """What one worker does in a row: a file's tests on one containerd with one runtime, which share fixtures."""
    found = _PLACE.search(nodeid)
    return "-".join([nodeid.partition("::")[0], *(found.groups() if found else ())])


class Groups(LoadScopeScheduling):  # type: ignore[misc]
    """Deals groups out to workers, in the order of the tests.

    By the tests' names: xdist 3.8's own groups are marks that it adds to names, which pytest 9.2 does not let it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def share_out(items: list[pytest.Item]) -> None:
    """Give each test enough time; the longest groups first, those of one containerd in a row.

    A worker has one containerd at a time, and each takes some seconds to make.
    """
    for item in items:
        own = item.get_closest_marker("timeout")
        item.add_marker(pytest.mark.timeout(PATIENCE * (own.args[0] if own else _TIMEOUT_S)), append=False)
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[bool, bool, int, str]:
    """For sorting, which keeps the order of the tests of a group."""
    containerd, runtime = _where(item)
    seconds = _SECONDS.get(_file(item), _USUAL_S)
    return containerd == "1.6", runtime == "runc", -seconds, group(item.nodeid)


def _where(item: pytest.Item) -> tuple[str, str]:
    """The containerd and the runtime; empty where a test has none."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return str(parameters.get("containerd", "")), str(parameters.get("runtime", ""))


def _file(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def measured() -> Sequence[str]:
    """The files that are known to take long; each is there (tests/unit/harness)."""
    return [*_SECONDS]
