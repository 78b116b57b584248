"""Which state may follow which, and why a machine ends."""

import itertools
import signal

import pytest

from shim.errors import StateError
from shim.vm.states import Cause, Exit, RunState, classify, describe_status, transition

ALLOWED = {
    (RunState.STARTING, RunState.PAUSED),
    (RunState.STARTING, RunState.ENDED),
    (RunState.PAUSED, RunState.RUNNING),
    (RunState.PAUSED, RunState.ENDED),
    (RunState.RUNNING, RunState.PAUSED),
    (RunState.RUNNING, RunState.ENDED),
}


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(RunState, RunState)))
def test_every_transition(current: RunState, wanted: RunState) -> None:
    if (current, wanted) in ALLOWED:
        assert transition(current, wanted) is wanted
    else:
        with pytest.raises(StateError, match=f"is {current.value}: it cannot become {wanted.value}"):
            transition(current, wanted)


@pytest.mark.parametrize(
    ("shutdown", "panicked", "killed", "cause"),
    [
        ("", False, None, Cause.QEMU),
        ("", False, Cause.KILLED, Cause.KILLED),
        ("", False, Cause.VSOCK, Cause.VSOCK),
        ("", False, Cause.ACCELERATOR, Cause.ACCELERATOR),
        ("guest-shutdown", False, None, Cause.POWEROFF),
        ("guest-shutdown", False, Cause.KILLED, Cause.POWEROFF),
        ("guest-reset", False, None, Cause.RESET),
        ("guest-panic", False, None, Cause.PANIC),
        ("", True, None, Cause.PANIC),
        ("", True, Cause.KILLED, Cause.PANIC),
        ("guest-reset", True, None, Cause.PANIC),
        ("host-signal", False, None, Cause.QEMU),
        ("host-qmp-quit", False, Cause.KILLED, Cause.KILLED),
    ],
)
def test_the_guests_own_end_goes_before_ours(shutdown: str, panicked: bool, killed: Cause | None, cause: Cause) -> None:
    assert classify(shutdown, panicked=panicked, killed=killed) is cause


def test_statuses_in_words() -> None:
    assert describe_status(1) == "ended with exit status 1"
    assert describe_status(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert describe_status(-62) == "was killed by signal 62"


def test_every_cause_has_words_and_the_detail_follows() -> None:
    words = {str(Exit(cause, 0)) for cause in Cause}
    assert len(words) == len(Cause)
    assert str(Exit(Cause.VSOCK, -9, "the daemon ended")).endswith(": the daemon ended")
    assert str(Exit(Cause.QEMU, -11)) == "QEMU was killed by SIGSEGV"
