"""The table of docs/conformance.md, row by row: what each shim answers to each call in each state.

The calls go straight to the shim's socket. Rows that change nothing share a container, so that all of them take a few
minutes; each is a test of its own all the same, and can be run alone.
"""

from collections.abc import Iterator

import pytest

from conformance.answers import Row
from conformance.rows import ROWS
from conformance.rows_exec import EXEC_ROWS
from conformance.theatre import Theatre
from harness.containerd import Containerd
from harness.traces import assert_nothing_new, take

_ALL = (*ROWS, *EXEC_ROWS)
_OF_BOTH = [row for row in _ALL if row.runc is not None]
# Where runc's two shims differ, both are asked at every change.
_OF_BOTH_MARKED = [pytest.param(row, marks=pytest.mark.every_containerd) if row.newest else row for row in _OF_BOTH]
_OF_OURS = [row for row in _ALL if row.runc is None]


@pytest.fixture(scope="module")
def theatre(request: pytest.FixtureRequest, containerd: Containerd, runtime: str) -> Iterator[Theatre]:
    """Where the rows of one runtime on one containerd are tried; all of them together leave nothing."""
    if runtime == "qemubox":
        containerd.qemubox.install()
        if not containerd.service.running and not request.config.getoption("without_service"):
            containerd.service.start()
    before = take(containerd)
    theatre = Theatre(containerd, runtime)
    yield theatre
    theatre.close()
    # Rows with a lost machine or shim keep the writable image.
    assert_nothing_new(containerd, before, by_runc=runtime == "runc", after_gc=runtime == "qemubox")


@pytest.fixture
def vm_theatre(theatre: Theatre) -> Theatre:
    """qemubox's alone."""
    return theatre


@pytest.mark.each_case
@pytest.mark.newest_runc
@pytest.mark.parametrize("row", _OF_BOTH_MARKED, ids=str)
def test_row(theatre: Theatre, row: Row) -> None:
    theatre.try_row(row)


@pytest.mark.each_case
@pytest.mark.parametrize("row", _OF_OURS, ids=str)
def test_row_without_runc(vm_theatre: Theatre, row: Row) -> None:
    vm_theatre.try_row(row)
