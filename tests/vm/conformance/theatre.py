"""Tries the table's rows, on a stage that is kept for as long as rows leave it as it was."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from conformance.answers import CLOSED, WAITS, Is, Row
from conformance.calls import ADDED_EXEC, NEW_EXEC, RUNNING_EXEC
from conformance.lost import Lost
from conformance.rows_exec import EARLY, FROZEN
from conformance.stage import CALL_DEADLINE_S, PATIENCE_S, SLEEP, Asking, Stage, process
from harness.containerd import Containerd
from harness.deadline import eventually
from harness.events import Events, subscribed
from harness.shim import Record
from ttrpc import StatusError

_AFTER_DEADLINE_S: Final = 15.0
_EXEC: Final = "x"
_GONE: Final = "containerd gone"
_STATE_BELOW: Final = {EARLY: "created", FROZEN: "paused"}
# What State says in a row's state, of the container or of the exec, where that has another name.
_WORDS: Final = {
    "deleted": "NOT_FOUND",
    "VM dead": "stopped",
    _GONE: "running",
    "exec unknown": "NOT_FOUND",
    "exec added": "created",
    "exec running": "running",
    "exec stopped": "stopped",
    "exec of no program": "created",
    "exec failed": "created or stopped",
    "exec without terminal": "running",
    EARLY: "created",
    FROZEN: "paused",
}
# What has an effect, and does not show in the container's state.
_CHANGES: Final = ("Create", "Kill(exec)", "Delete(exec)", "Start(exec)", "Exec")


class Theatre:
    """One runtime on one containerd. `close` leaves nothing."""

    def __init__(self, containerd: Containerd, runtime: str) -> None:
        self._containerd = containerd
        self._runtime = runtime
        self._runner = asyncio.Runner()
        self._record = Record(containerd, f"conformance-{runtime}")
        self._subscription = ExitStack()
        self._events: Events | None = None
        self._stage: Stage | Lost | None = None
        self._state = ""

    def close(self) -> None:
        """Take it all down."""
        try:
            self.clear()
        finally:
            self._subscription.close()
            self._record.remove()
            self._runner.close()

    def try_row(self, row: Row) -> None:
        """Make the call, and compare all that came of it with what is expected."""
        try:
            self._try(row)
        except BaseException:
            self.clear(checked=False)
            raise

    def _try(self, row: Row) -> None:
        expected = row.expected(self._runtime, self._containerd.flavour.name)
        is_exec = row.state.startswith("exec ")
        stage = self._on_stage(_STATE_BELOW.get(row.state, "running") if is_exec else row.state)
        exec_id = (ADDED_EXEC if row.state == FROZEN else _EXEC) if is_exec and row.call != "Pids" else ""
        if is_exec:
            _enter(stage, row.state)
        before = stage.state(exec_id)
        word = _WORDS.get(row.state, row.state) if exec_id or not is_exec else "running"
        assert before in word.split(" or "), f"it is {before}, not {row.state}"
        if isinstance(stage, Stage):
            stage.told.take()
        answer = stage.ask(row.call, exec_id, PATIENCE_S if expected.code == WAITS else CALL_DEADLINE_S)
        log = stage.bundle.log()[-4000:] if isinstance(stage, Stage) else ""
        assert expected.admits(answer.code, answer.words), f"{answer}, expected {expected}\n{log}"
        after = expected.after or before
        eventually(lambda: stage.state(exec_id) == after, f"it is {after}\n{log}", _AFTER_DEADLINE_S)
        if isinstance(stage, Stage):
            stage.told.owe(len(expected.events))
            told = stage.told.take()
            if self._runtime == "qemubox":
                assert tuple(told) == expected.events, log
            else:  # whose order is not always the same
                assert set(expected.events) <= set(told) <= {*expected.events, *expected.maybe}, stage.told.all
        self._restore(row, expected)

    def _on_stage(self, state: str) -> Stage | Lost:
        if self._stage is None or self._state != state:
            self.clear()
            self._stage, self._state = self._make(state), state
        return self._stage

    def _make(self, state: str) -> Stage | Lost:
        if state == _GONE:
            self._subscription.close()
            self._events = None
            return Lost(self._containerd, self._runtime, self._runner)
        if self._events is None:
            self._events = self._subscription.enter_context(subscribed(self._containerd))
        stage = Stage(self._record, self._runtime, self._runner, self._events)
        try:
            self._go(stage, state)
        except BaseException:
            stage.remove()
            raise
        return stage

    def _go(self, stage: Stage, state: str) -> None:
        stage.create()
        if state != "created":
            stage.start()
        if state == "paused":
            stage.pause()
        if state in ("stopped", "deleted"):
            stage.stop()
        if state == "deleted":
            stage.delete()
        if state == "VM dead":
            stage.lose_machine()

    def _restore(self, row: Row, expected: Is) -> None:
        """Make the stage what it was before the row, or do without it from now on."""
        stage, call = self._stage, row.call
        assert stage is not None
        done = expected.code == "OK"
        if row.state.startswith("exec "):
            if expected.after == CLOSED or (row.state == FROZEN and expected.after):
                self.clear()
            else:
                stage.drop_exec(_EXEC)
        elif done and row.state in ("running", _GONE) and call in _UNDO:
            _UNDO[call](stage)
        elif done and row.state == "created" and call == "Exec":
            stage.drop_exec(NEW_EXEC)
        elif done and row.state == "paused" and call == "Resume":
            stage.pause()
        elif expected.after or (done and call in _CHANGES) or (self._runtime == "runc" and call == "Create"):
            # A Create that fails takes the root file system off runc's bundle.
            self.clear()

    def clear(self, *, checked: bool = True) -> None:
        """Take the stage down, and look at all that was told of it: of runc's, what it has lost is not ours to say."""
        stage, self._stage = self._stage, None
        if stage is None:
            return
        stage.remove()
        if isinstance(stage, Stage) and checked and self._runtime == "qemubox":
            with suppress(AssertionError):  # its end may have been told and not have come yet
                eventually(lambda: not stage.faults(), "", _AFTER_DEADLINE_S)
            assert not (found := stage.faults()), f"{found} in {stage.told.all}"


def _enter(stage: Asking, state: str) -> None:
    """Give the container a process x in that state."""
    if state in ("exec unknown", FROZEN):
        return
    document = process("/nonexistent") if state in ("exec of no program", "exec failed") else b""
    if state == "exec without terminal":
        stage.add_exec(_EXEC, process(*SLEEP, terminal=False), terminal=False)
    else:
        stage.add_exec(_EXEC, document)
    if state in ("exec running", "exec stopped", "exec without terminal"):
        stage.start_exec(_EXEC)
    if state == "exec stopped":
        stage.end_exec(_EXEC)
    if state == "exec failed":
        with suppress(StatusError):
            stage.start_exec(_EXEC)


def _renew(stage: Asking, exec_id: str) -> None:
    """Give it a new process of that id."""
    stage.drop_exec(exec_id)
    stage.add_exec(exec_id)
    if exec_id == RUNNING_EXEC:
        stage.start_exec(exec_id)


_UNDO: Final[dict[str, Callable[[Asking], None]]] = {
    "Exec": lambda stage: stage.drop_exec(NEW_EXEC),
    "Start(exec)": lambda stage: _renew(stage, ADDED_EXEC),
    "Kill(exec)": lambda stage: _renew(stage, RUNNING_EXEC),
    "Pause": lambda stage: stage.resume(),
}
