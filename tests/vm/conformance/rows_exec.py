"""The table's rows for the states of one further process, x, of a container that runs.

"exec failed" is one whose program does not exist, after its Start.
"""

from typing import Final

from conformance.answers import (
    CLOSED,
    Is,
    Row,
    missing,
    of,
    ok,
    refused,
    row,
    same,
    unknown,
    waits,
)

# The states of an exec in which the container does not run.
EARLY: Final = "exec before the start"
FROZEN: Final = "exec in a pause"
_TAKEN: Final = row(
    "Exec", Is("ALREADY_EXISTS", "id x: already exists"), Is("ALREADY_EXISTS", "container C has a process x already")
)
_OTHERS: Final = "the task's pid, the exec's pid (e)"


def _unknown(call: str, code: str = "NOT_FOUND") -> Row:
    return row(call, Is(code, "process does not exist x: not found"), missing("no process x in container C"))


_UNKNOWN: Final = (
    same("Exec", ok(after="created", events="exec-added x")),
    _unknown("Start(exec)"),
    _unknown("State(exec)"),
    _unknown("Wait(exec)"),
    _unknown("Kill(exec)"),
    _unknown("Delete(exec)"),
    _unknown("ResizePty(exec)"),
    _unknown("CloseIO(exec)", "UNKNOWN"),
    same("Pids", ok(_OTHERS)),
)

_ADDED: Final = (
    _TAKEN,
    same("Start(exec)", ok("a pid", "running", "exec-started x")),
    same("State(exec)", ok("created, no pid")),
    same("Wait(exec)", waits),
    row("Kill(exec)", refused("process not created: failed precondition"), refused("x of C: it has not been started")),
    same("Delete(exec)", ok("no pid", "NOT_FOUND")),
    same("ResizePty(exec)", ok()),
    same("CloseIO(exec)", ok()),
    same("Pids", ok(_OTHERS)),
)

_RUNNING: Final = (
    _TAKEN,
    row(
        "Start(exec)", unknown("cannot start a running process"), refused("cannot start process x of C: it is running")
    ),
    same("State(exec)", ok("running, the exec's pid")),
    same("Wait(exec)", waits),
    same("Kill(exec)", ok(after="stopped", events="exit x")),
    row(
        "Delete(exec)",
        unknown("cannot delete a running process"),
        refused("cannot delete process x of C: it is running"),
    ),
    same("ResizePty(exec)", ok()),
    same("CloseIO(exec)", ok()),
    same("Pids", ok("the task's pid, the exec's pid (x), the exec's pid (e)")),
)

_STOPPED: Final = (
    _TAKEN,
    row(
        "Start(exec)", unknown("cannot start a stopped process"), refused("cannot start process x of C: it is stopped")
    ),
    same("State(exec)", ok("stopped, the exec's pid, exit 137")),
    same("Wait(exec)", ok("exit 137")),
    row("Kill(exec)", missing("process already finished: not found"), missing("x of C: process already finished")),
    same("Delete(exec)", ok("the exec's pid, exit 137", "NOT_FOUND")),
    row("ResizePty(exec)", unknown("cannot resize a stopped container"), ok(), note="h"),
    same("CloseIO(exec)", ok()),
    same("Pids", ok(_OTHERS)),
)

_FAILING: Final = (
    row(
        "Start(exec)",
        unknown('exec: "/nonexistent": stat /nonexistent: no such file or directory'),
        Is("INTERNAL", "executable file `/nonexistent` not found", "stopped"),
        note="k",
    ),
)

_FAILED: Final = (
    _TAKEN,
    row("Start(exec)", Is(CLOSED, after=CLOSED), refused("cannot start process x of C: it is stopped"), note="l"),
    row("State(exec)", ok("created, no pid"), ok("stopped, no pid, exit 127"), note="k"),
    row("Wait(exec)", ok("exit 0 at no time"), ok("exit 127"), note="k"),
    row(
        "Kill(exec)",
        refused("process not created: failed precondition"),
        missing("x of C: process already finished"),
        note="k",
    ),
    row("Delete(exec)", ok("no pid", "NOT_FOUND"), ok("no pid, exit 127", "NOT_FOUND"), note="k"),
    same("ResizePty(exec)", ok()),
    same("CloseIO(exec)", ok()),
    same("Pids", ok(_OTHERS)),
)

_EARLY: Final = (
    same("Start(exec)", ok("a pid", "running", "exec-started x")),
    row("Kill(exec)", refused("process not created: failed precondition"), refused("x of C: it has not been started")),
)

_FROZEN: Final = (
    same("State(exec)", ok("paused, no pid")),
    same("Wait(exec)", waits),
    row("Kill(exec)", refused("process not created: failed precondition"), refused("a of C: it has not been started")),
    same("ResizePty(exec)", ok()),
    same("Delete(exec)", ok("no pid", "NOT_FOUND")),
)

_PLAIN: Final = (row("ResizePty(exec)", ok(), refused("process x of C has no terminal to resize"), note="b"),)

EXEC_ROWS: Final = (
    *of("exec unknown", _UNKNOWN),
    *of("exec added", _ADDED),
    *of("exec running", _RUNNING),
    *of("exec stopped", _STOPPED),
    *of("exec of no program", _FAILING),
    *of("exec failed", _FAILED),
    *of("exec without terminal", _PLAIN),
    *of(EARLY, _EARLY),
    *of(FROZEN, _FROZEN),
)
