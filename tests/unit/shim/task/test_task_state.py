"""The moves between a process's states, and what containerd is told of each."""

from hypothesis import given
from hypothesis import strategies as st

from api import task_types_pb2
from shim.task.state import MOVES, State, allowed

_EXPECTED = {
    (State.CREATED, State.RUNNING),
    (State.CREATED, State.STOPPED),
    (State.CREATED, State.DELETED),
    (State.RUNNING, State.PAUSED),
    (State.RUNNING, State.STOPPED),
    (State.PAUSED, State.RUNNING),
    (State.PAUSED, State.STOPPED),
    (State.STOPPED, State.DELETED),
}


def test_the_moves_are_these_and_no_others() -> None:
    assert {(before, after) for before in State for after in State if allowed(before, after)} == _EXPECTED
    assert set(MOVES) == set(State)


def test_containerd_knows_every_state() -> None:
    assert {state.name: state.value for state in State} == {
        "CREATED": task_types_pb2.CREATED,
        "RUNNING": task_types_pb2.RUNNING,
        "PAUSED": task_types_pb2.PAUSED,
        "STOPPED": task_types_pb2.STOPPED,
        "DELETED": task_types_pb2.UNKNOWN,
    }


@given(st.lists(st.sampled_from(State)))
def test_every_life_ends_once(wishes: list[State]) -> None:
    state, seen = State.CREATED, [State.CREATED]
    for wish in wishes:
        if allowed(state, wish):
            state = wish
            seen.append(wish)
    assert seen.count(State.STOPPED) <= 1
    assert seen.count(State.DELETED) <= 1
    if State.STOPPED in seen:
        assert set(seen[seen.index(State.STOPPED) + 1 :]) <= {State.DELETED}
    if State.DELETED in seen:
        assert seen[-1] is State.DELETED
