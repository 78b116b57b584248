"""The states of a process, as containerd knows them, and the only moves between them.

CREATED ──start──▶ RUNNING ──pause──▶ PAUSED
   │                  │  ◀──resume──    │
   └──────exit────────┴──────exit───────┘
                      ▼
                   STOPPED ──delete──▶ DELETED
CREATED ──delete──▶ DELETED       (never started)
"""

from enum import Enum
from typing import Final

from api import task_types_pb2


class State(Enum):
    """Where in its life a process is; the value is what containerd is told."""

    value: task_types_pb2.Status

    CREATED = task_types_pb2.CREATED
    RUNNING = task_types_pb2.RUNNING
    PAUSED = task_types_pb2.PAUSED
    STOPPED = task_types_pb2.STOPPED
    # Never told: calls for a deleted process find nothing, and one whose Delete is under way shows as stopped.
    DELETED = task_types_pb2.UNKNOWN


MOVES: Final[dict[State, frozenset[State]]] = {
    State.CREATED: frozenset({State.RUNNING, State.STOPPED, State.DELETED}),
    State.RUNNING: frozenset({State.PAUSED, State.STOPPED}),
    State.PAUSED: frozenset({State.RUNNING, State.STOPPED}),
    State.STOPPED: frozenset({State.DELETED}),
    State.DELETED: frozenset(),
}


def allowed(before: State, after: State) -> bool:
    """Whether a process may go from `before` to `after`."""
    return after in MOVES[before]
