"""The model itself: what it allows, and what it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from conformance import moves
from conformance.model import ABSENT, ENDS, MISSING, SLEEPS, STOPPED, Model, Move

_STEPS: list[tuple[Move, str]] = [
    (moves.create(SLEEPS), "OK"),
    (moves.add("e", SLEEPS), "OK"),
    (moves.kill_exec("e"), "FAILED_PRECONDITION"),
    (moves.start(), "OK"),
    (moves.start(), "FAILED_PRECONDITION"),
    (moves.add("e", SLEEPS), "ALREADY_EXISTS"),
    (moves.start_exec("e"), "OK"),
    (moves.pids(), "OK e"),
    (moves.pause(), "OK"),
    (moves.state("e"), "OK paused"),
    (moves.add("f", SLEEPS), "FAILED_PRECONDITION"),
    (moves.delete(), "FAILED_PRECONDITION"),
    (moves.resume(), "OK"),
    (moves.delete_exec("e"), "FAILED_PRECONDITION"),
    (moves.wait("e"), "waits"),
    (moves.kill_exec("e"), "OK"),
    (moves.wait("e"), "OK"),
    (moves.kill_exec("e"), "NOT_FOUND"),
    (moves.delete_exec("e"), "OK"),
    (moves.state("e"), "NOT_FOUND"),
    (moves.kill(15), "OK"),
    (moves.wait(), "waits"),
    (moves.kill_all(), "OK"),
    (moves.wait(), "OK"),
    (moves.state(), "OK stopped"),
    (moves.update(), "FAILED_PRECONDITION"),
    (moves.always(), "OK"),
    (moves.delete(), "OK"),
    (moves.connect(), "OK"),
    (moves.not_there(), "UNIMPLEMENTED"),
    (moves.pause(), "NOT_FOUND"),
    (moves.create(ENDS), "OK"),
]


def _after(*steps: tuple[Move, str]) -> Model:
    model = Model()
    for move, answer in steps:
        model.observe(move, answer)
    return model


def test_a_life_in_which_nothing_is_left_open() -> None:
    _after(*_STEPS)


@pytest.mark.parametrize("number", range(len(_STEPS)))
def test_another_answer_is_an_error(number: int) -> None:
    model = _after(*_STEPS[:number])
    with pytest.raises(AssertionError, match="'another', and not one of"):
        model.observe(_STEPS[number][0], "another")


def test_after_sigkill_it_may_or_may_not_have_ended_and_every_answer_settles_it() -> None:
    begun = [(moves.create(SLEEPS), "OK"), (moves.start(), "OK"), (moves.kill(9), "OK")]
    for word in ("OK running", "OK stopped"):
        _after(*begun, (moves.state(), word))
    ended = _after(*begun, (moves.wait(), "OK"))
    with pytest.raises(AssertionError):
        ended.observe(moves.state(), "OK running")


def test_its_execs_end_with_it_and_before_it() -> None:
    model = _after(*_STEPS[:7], (moves.kill(9), "OK"), (moves.state(), "OK stopped"))
    model.observe(moves.wait("e"), "OK")
    model.observe(moves.pids(), "OK")


def test_one_that_runs_does_not_end_by_itself_if_it_sleeps() -> None:
    for kind, count in ((SLEEPS, 1), (ENDS, 2)):
        assert len(_after((moves.create(kind), "OK"), (moves.start(), "OK")).worlds) == count


def test_a_program_that_does_not_exist() -> None:
    model = _after((moves.create(SLEEPS), "OK"), (moves.add("e", MISSING), "OK"), (moves.start_exec("e"), "INTERNAL"))
    assert {world.exec("e").state for world in model.worlds} == {STOPPED}
    model.observe(moves.wait("e"), "OK")


def test_two_at_once_are_one_after_the_other_in_either_order() -> None:
    begun = [(moves.create(SLEEPS), "OK"), (moves.start(), "OK")]
    both = (moves.add("e", SLEEPS), moves.start_exec("e"))
    for answers, state in ((("OK", "OK"), "running"), (("OK", "NOT_FOUND"), "created")):
        model = _after(*begun)
        model.observe_both(both, answers)
        model.observe(moves.state("e"), f"OK {state}")
    with pytest.raises(AssertionError, match="nor the other way round"):
        _after(*begun).observe_both(both, ("ALREADY_EXISTS", "OK"))
    with pytest.raises(AssertionError):
        _after(*begun).observe_both((moves.pause(), moves.pause()), ("OK", "OK"))


_ANY: list[Move] = [
    *(move for move, _ in _STEPS),
    moves.start_exec("f"),
    moves.add("f", ENDS),
    moves.add("g", MISSING),
    moves.start_exec("g"),
    moves.kill(9),
]


@given(some.lists(some.sampled_from(_ANY), max_size=30), some.data())
def test_something_may_be_answered_whatever_is_called(calls: list[Move], data: some.DataObject) -> None:
    model = Model()
    for move in calls:
        possible = model.possible(move)
        assert possible
        answer = data.draw(some.sampled_from(sorted(possible)))
        model.observe(move, answer[0])
        assert model.worlds
        assert len(model.worlds) < 200
        if {world.init.state for world in model.worlds} == {ABSENT}:
            assert {world.execs for world in model.worlds} == {()}
