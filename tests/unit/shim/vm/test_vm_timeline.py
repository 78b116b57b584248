"""A timeline keeps the order and counts from its first mark."""

from shim.vm.timeline import Timeline, boottime_ns


def test_an_empty_timeline() -> None:
    timeline = Timeline()
    assert timeline.marks == []
    assert timeline.milliseconds() == {}
    assert timeline.last == ""


def test_milliseconds_count_from_the_first_mark() -> None:
    timeline = Timeline()
    timeline.mark("launch", 5_000_000)
    timeline.mark("run", 7_500_000)
    assert timeline.milliseconds() == {"launch": 0.0, "run": 2.5}
    assert timeline.last == "run"


def test_a_mark_is_made_now() -> None:
    timeline = Timeline()
    before = boottime_ns()
    timeline.mark("launch")
    assert before <= timeline.marks[0][1] <= boottime_ns()
