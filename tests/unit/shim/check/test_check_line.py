"""Lines: one line each, whatever is in them, and the worst of them."""

import pytest

from shim.check.line import Level, Line, Report, worst


def test_a_line_is_one_line_and_its_mending_another() -> None:
    report = Report("qemu")
    report.failure("a\nb", "c\x1b[31m\td", "e\r\nf")
    (line,) = report.lines
    assert (line.what, line.found, line.mend) == ("a b", "c [31m d", "e f")
    assert str(line).splitlines() == ["failure  qemu          a b: c [31m d", " " * 23 + "-> e f"]


def test_what_is_well_has_no_mending() -> None:
    report = Report("qemu")
    report.ok("x", "y")
    assert str(report.lines[0]) == "ok       qemu          x: y"


@pytest.mark.parametrize(
    ("levels", "found"),
    [([], Level.OK), (["ok"], Level.OK), (["ok", "warning"], Level.WARNING), (["failure", "ok"], Level.FAILURE)],
)
def test_the_worst_is_that_of_all(levels: list[str], found: Level) -> None:
    assert worst([Line(Level(level), "", "", "") for level in levels]) is found
