"""What is done, in which order, and what beside what."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lanes.plan import LANES, Step, hopeless, next_step, plan

ROOT = Path(__file__).resolve().parents[3]


def _names(steps: Sequence[Step]) -> list[str]:
    return [step.name for step in steps]


def test_what_is_needed_comes_first_and_all_of_it() -> None:
    for lane in LANES:
        assert [step.name for step in plan([lane]) if step.is_lane] == [lane]
    for steps in (plan(LANES), plan(LANES, everything=True), plan(["kvm"])):
        done: set[str] = set()
        for step in steps:
            assert {*step.after} <= done, step
            done.add(step.name)


def test_a_lane_alone_builds_only_what_it_needs() -> None:
    assert _names(plan(["check"])) == ["check"]
    assert _names(plan(["unit"])) == ["plugins", "unit"]
    assert "release" in _names(plan(["kvm"]))
    assert "release" not in _names(plan(["vm"]))


def test_everything_is_the_whole_matrix_and_has_more_time() -> None:
    for usual, whole in zip(plan(LANES), plan(LANES, everything=True), strict=True):
        assert ("--matrix" in whole.command) == (whole.name == "vm")
        assert "--matrix" not in usual.command
        assert whole.deadline_s >= usual.deadline_s


def test_each_script_that_is_called_is_there() -> None:
    for step in plan(LANES):
        for word in step.command.split():
            assert not word.endswith(".sh") or (ROOT / word).is_file(), step


def _run_through(steps: list[Step], cores: int) -> list[set[str]]:
    """What runs at the same time if whatever began first ends first."""
    waiting, running, done, seen = list(steps), list[Step](), list[str](), list[set[str]]()
    while waiting or running:
        while following := next_step(waiting, running, done, cores):
            waiting.remove(following)
            running.append(following)
        seen.append({*_names(running)})
        done.append(running.pop(0).name)
    return seen


@pytest.mark.parametrize("cores", [1, 2, 4, 64])
def test_all_is_done_once_and_two_lanes_of_tests_never_share_the_machine(cores: int) -> None:
    steps = plan(LANES)
    seen = _run_through(steps, cores)
    assert set.union(*seen) == {*_names(steps)}
    heavy = {step.name for step in steps if step.cores == 0}
    assert all(len(together & heavy) <= 1 for together in seen)
    assert any("kernel" in together and len(together) > 1 for together in seen)


def test_what_needs_something_that_failed_is_not_waited_for() -> None:
    a, b, c, d = Step("a", ""), Step("b", "", after=("a",)), Step("c", "", after=("b",)), Step("d", "")
    assert hopeless([b, c, d], ["a"]) == {"b": "a", "c": "a"}
    assert hopeless([b, c, d], []) == {}
    assert next_step([b, c, d], [], ["a"], 1) == b
    assert next_step([b, c], [a], [], 1) is None
