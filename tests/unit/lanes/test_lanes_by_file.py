"""How long the tests of each file took."""

import pytest

from tests.lanes.by_file import by_file


def _report(nodeid: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(nodeid, ("", 0, ""), {}, "passed", None, "call", duration=seconds)


def test_each_file_s_parts_are_added() -> None:
    reports = [
        _report("tests/vm/a.py::one[x::y]", 1.5),
        _report("tests/vm/b.py::two", 4),
        _report("tests/vm/a.py::C::t", 1),
    ]
    assert by_file(reports) == {"tests/vm/a.py": 2.5, "tests/vm/b.py": 4}
