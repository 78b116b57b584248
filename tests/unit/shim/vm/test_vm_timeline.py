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


def test_the_guest_s_milestones_are_put_on_our_clock_by_the_quickest_answer() -> None:
    timeline = Timeline()
    timeline.mark("launch", 100_000_000)
    timeline.mark("run", 110_000_000)
    # The guest's clock is 90 ms behind ours; the first answer took 5 ms, the second 1 ms.
    timeline.hear([("configured", 30_000_000)], 32_000_000, 127_000_000)
    timeline.hear([("configured", 30_000_000), ("started", 40_000_000)], 41_000_000, 132_000_000)
    timeline.mark("started", 133_000_000)
    assert timeline.milliseconds() == {
        "launch": 0.0,
        "run": 10.0,
        "guest configured": 21.0,
        "guest started": 31.0,
        "started": 33.0,
    }


def test_what_a_clone_s_template_reached_is_not_the_clone_s() -> None:
    milestones = [("python", 10_000_000), ("waiting", 20_000_000), ("configured", 25_000_000)]
    clone, booted = Timeline(), Timeline()
    for timeline in (clone, booted):
        timeline.mark("launch", 1_000_000_000)
        timeline.hear(milestones, 26_000_000, 1_026_000_000)
    clone.mark("restored", 1_001_000_000)
    assert list(clone.milliseconds()) == ["launch", "restored", "guest configured"]
    assert list(booted.milliseconds()) == ["launch", "guest python", "guest waiting", "guest configured"]
