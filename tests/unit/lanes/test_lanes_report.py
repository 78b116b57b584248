"""What is said of the lanes."""

from tests.lanes.report import Ended, clock, faults, summary, under_way


def test_the_last_lines_name_each_lane_its_time_and_what_failed() -> None:
    log = "....F\nFAILED tests/vm/test_x.py::test_y[c2-qemubox] - AssertionError\n1 failed in 3 s\n"
    ended = [
        Ended("kernel", False, 481.2),
        Ended("plugins", False, 3.0),
        Ended("check", True, 48.4, "", "build/lanes/check.log", "fine\n"),
        Ended("vm", True, 842.0, "exit status 1", "build/lanes/vm.log", log),
        Ended("kvm", True, 0.0, "not run, as release failed"),
    ]
    assert summary(ended, 1323) == [
        "vm: exit status 1",
        "  FAILED tests/vm/test_x.py::test_y[c2-qemubox] - AssertionError",
        "kvm: not run, as release failed",
        "build  passed (kernel 8:01)",
        "check  passed 0:48 build/lanes/check.log",
        "vm     FAILED 14:02 build/lanes/vm.log",
        "kvm    FAILED 0:00",
        "in 22:03: failed: vm, kvm",
    ]


def test_where_nothing_failed() -> None:
    assert summary([Ended("unit", True, 61, "", "x")], 61) == ["unit   passed 1:01 x", "in 1:01: all passed"]
    assert summary([Ended("kernel", False, 5, "exit status 2", "x", "no\n")], 5) == [
        "kernel: exit status 2",
        "  no",
        "build  FAILED",
        "in 0:05: failed: kernel",
    ]


def test_faults_are_those_of_any_tool_or_the_last_words() -> None:
    mypy = 'shim/cli.py:3: error: Name "x" is not defined'
    ruff = "shim/cli.py:1:1: F401 imported but unused"
    assert faults(f"begin\n{mypy}\n{ruff}\nFound 2 errors\n") == [mypy, ruff]
    assert faults("".join(f"{number}\n" for number in range(9))) == ["4", "5", "6", "7", "8"]
    many = faults("".join(f"FAILED {number}\n" for number in range(40)))
    assert many[-1] == "and 15 more"
    assert len(many) == 26


def test_how_far_one_is() -> None:
    assert under_way("vm", 125.0, "....  [ 17%]\n...  [ 34%]\n..") == "vm 2:05 (34 %)"
    assert under_way("kernel", 5.0, "") == "kernel 0:05"
    assert (clock(0.4), clock(3599.6)) == ("0:00", "60:00")
