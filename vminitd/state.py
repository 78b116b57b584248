"""The states of a process, the container's first and further ones alike, and how it may move between them. Pure.

CREATED ──▶ STARTING ──▶ RUNNING ◀──▶ PAUSED
   │            │           │            │
   │            ▼           ▼            │
   ├────────▶ STOPPED ◀──────────────────┘
   ▼            │
DELETED ◀───────┘
"""

import enum

from vminitd.errors import StateError


class State(enum.Enum):
    """What a process is; the values are the words of error messages."""

    CREATED = "created"
    """crun has made the first process and holds it; a further process is only registered."""
    STARTING = "starting"
    """A Start is under way; the process may already run, and even have ended."""
    RUNNING = "running"
    PAUSED = "paused"
    """Frozen with its whole container; only the first process shows it."""
    STOPPED = "stopped"
    """It has ended, was killed before its start, or could not be started. Output may still be on its way."""
    DELETED = "deleted"
    """Its id is free again."""


_MOVES: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.STARTING, State.STOPPED, State.DELETED}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPED}),
    State.RUNNING: frozenset({State.PAUSED, State.STOPPED}),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPED}),
    State.STOPPED: frozenset({State.DELETED}),
    State.DELETED: frozenset(),
}


def move(current: State, new: State, what: str) -> State:
    """`new`, if a process may go there from `current`. Raises StateError, which names `what`, if not."""
    if new not in _MOVES[current]:
        raise StateError(f"{what} is {current.value}, and cannot become {new.value}")
    return new
