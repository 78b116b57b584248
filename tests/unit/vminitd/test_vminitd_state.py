"""The states of a process: which moves there are, all of them, and that every other one is refused by name."""

import itertools

import pytest

from ttrpc import Code
from vminitd.errors import StateError
from vminitd.state import State, move

ALLOWED = {
    (State.CREATED, State.STARTING),
    (State.CREATED, State.STOPPED),
    (State.CREATED, State.DELETED),
    (State.STARTING, State.RUNNING),
    (State.STARTING, State.STOPPED),
    (State.RUNNING, State.PAUSED),
    (State.RUNNING, State.STOPPED),
    (State.PAUSED, State.RUNNING),
    (State.PAUSED, State.STOPPED),
    (State.STOPPED, State.DELETED),
}


@pytest.mark.parametrize(("current", "new"), [*itertools.product(State, State)])
def test_every_pair_of_states(current: State, new: State) -> None:
    if (current, new) in ALLOWED:
        assert move(current, new, "process 'x'") is new
        return
    with pytest.raises(StateError) as caught:
        move(current, new, "process 'x'")
    assert caught.value.message == f"process 'x' is {current.value}, and cannot become {new.value}"
    assert caught.value.code is Code.FAILED_PRECONDITION


def test_nothing_leaves_the_last_state() -> None:
    assert all(current is not State.DELETED for current, _ in ALLOWED)
