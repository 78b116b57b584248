"""The states of a virtual machine, which may follow which, and why a machine ends.

STARTING ──▶ PAUSED ◀──▶ RUNNING
    │           │           │
    └───────────┴─────┬─────┘
                      ▼
                    ENDED
"""

import enum
import signal
from dataclasses import dataclass
from typing import Final

from shim.errors import StateError


class RunState(enum.Enum):
    """Where a machine is in its life."""

    # QEMU has been started; its control connection does not answer yet.
    STARTING = "starting"
    # No guest instruction runs: before the first `run`, or after `pause`. Devices can be added.
    PAUSED = "paused"
    # The guest runs. Devices can be added and removed.
    RUNNING = "running"
    # QEMU is gone and everything of it is released. Nothing follows.
    ENDED = "ended"


_FOLLOWS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.STARTING: frozenset({RunState.PAUSED, RunState.ENDED}),
    RunState.PAUSED: frozenset({RunState.RUNNING, RunState.ENDED}),
    RunState.RUNNING: frozenset({RunState.PAUSED, RunState.ENDED}),
    RunState.ENDED: frozenset(),
}


def transition(current: RunState, wanted: RunState) -> RunState:
    """Answer `wanted` if it may follow `current`; raise StateError otherwise."""
    if wanted not in _FOLLOWS[current]:
        raise StateError(f"the virtual machine is {current.value}: it cannot become {wanted.value}")
    return wanted


class Cause(enum.Enum):
    """Why a machine ended."""

    # We killed it.
    KILLED = "killed"
    # The guest powered itself off.
    POWEROFF = "poweroff"
    # The guest's kernel panicked.
    PANIC = "panic"
    # The guest reset itself, which -no-reboot turns into an end. A panic that pvpanic did not see ends so too.
    RESET = "reset"
    # The accelerator gave up: QEMU's run state "internal-error".
    ACCELERATOR = "accelerator"
    # The guest cannot be reached any more: its vsock daemon ended.
    VSOCK = "vsock"
    # What the guest has of the host's directories cannot be reached any more: virtiofsd ended.
    VOLUMES = "volumes"
    # QEMU ended by itself, or someone else killed it.
    QEMU = "qemu"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a machine ended. `status` is QEMU's: an exit code, or minus the signal's number."""

    cause: Cause
    status: int
    detail: str = ""

    def __str__(self) -> str:
        return self._words() + (f": {self.detail}" if self.detail else "")

    def _words(self) -> str:
        match self.cause:
            case Cause.KILLED:
                return "it was stopped"
            case Cause.POWEROFF:
                return "the guest powered off"
            case Cause.PANIC:
                return "the guest's kernel panicked"
            case Cause.RESET:
                return "the guest reset itself"
            case Cause.ACCELERATOR:
                return "the accelerator cannot run the guest"
            case Cause.VSOCK:
                return "the guest cannot be reached any more"
            case Cause.VOLUMES:
                return "its volumes cannot be reached any more"
            case Cause.QEMU:
                return f"QEMU {describe_status(self.status)}"


def describe_status(status: int) -> str:
    """An exit status in words: `ended with exit status 1`, `was killed by SIGSEGV`."""
    if status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def classify(shutdown: str, *, panicked: bool, killed: Cause | None) -> Cause:
    """Say why a machine ended.

    `shutdown` is the reason in QEMU's SHUTDOWN event, empty without one (QAPI
    ShutdownCause, qapi/run-state.json); `panicked`: a GUEST_PANICKED event came;
    `killed`: why we killed it, None if we did not. The guest's own end goes before
    ours: a panic that is met by a kill stays a panic.
    """
    if panicked or shutdown == "guest-panic":
        return Cause.PANIC
    if shutdown == "guest-shutdown":
        return Cause.POWEROFF
    if shutdown in ("guest-reset", "subsystem-reset"):
        return Cause.RESET
    return Cause.QEMU if killed is None else killed
