"""The table's rows for a container: each call in each of its states. Measured first on runc's shim, then compared.

A container has a terminal and two further processes, e, which runs, and a, which is registered only; one that is
created has none yet. Those for the states of an exec are in rows_exec.py.
"""

from typing import Final

from conformance.answers import (
    CLOSED,
    Is,
    Row,
    missing,
    not_there,
    of,
    ok,
    ours,
    refused,
    row,
    same,
    unknown,
    waits,
)

_METRICS: Final = "io.containerd.cgroups.v2.Metrics"
# By the cgroup version of the host.
_RUNC_METRICS: Final = ok(f"io.containerd.cgroups.v1.Metrics or {_METRICS}")
_TWICE: Final = row(
    "Create",
    unknown("container with given ID already exists"),
    Is("ALREADY_EXISTS", "container C exists already"),
    note="a",
)
_NO_CHECKPOINT: Final = "c"


def _no_exec(call: str, name: str, code: str = "NOT_FOUND") -> Row:
    return row(
        call, Is(code, f"process does not exist {name}: not found"), missing(f"no process {name} in container C")
    )


_CREATED: Final = (
    _TWICE,
    same("Start", ok("the task's pid", "running", "start")),
    same("State", ok("created, the task's pid")),
    same("Wait", waits),
    same("Kill", ok(after="stopped", events="exit")),
    same("Kill(all)", ok(after="stopped", events="exit")),
    row(
        "Delete",
        ok("the task's pid", "NOT_FOUND", "exit, delete"),
        ok("the task's pid, exit 137", "NOT_FOUND", "exit, delete"),
        note="d",
    ),
    same("Exec", ok(events="exec-added n")),
    _no_exec("Start(exec)", "a"),
    _no_exec("State(exec)", "e"),
    _no_exec("Wait(exec)", "e"),
    _no_exec("Kill(exec)", "e"),
    _no_exec("Delete(exec)", "e"),
    _no_exec("ResizePty(exec)", "e"),
    _no_exec("CloseIO(exec)", "e", "UNKNOWN"),
    same("Pids", ok("the task's pid")),
    row("Pause", unknown("cannot pause task in created state"), refused("cannot pause container C: it is created")),
    row("Resume", unknown("cannot resume task in created state"), refused("cannot resume container C: it is created")),
    same("ResizePty", ok()),
    same("CloseIO", ok()),
    same("Update", ok()),
    row("Stats", _RUNC_METRICS, ok(_METRICS), note="e"),
    same("Connect", ok("the task's pid")),
    row("Checkpoint", unknown("cannot checkpoint a task in created state"), not_there, note=_NO_CHECKPOINT),
    same("Shutdown", ok(), note="f"),
)

_RUNNING: Final = (
    _TWICE,
    row("Start", unknown("cannot start a running process"), refused("cannot start container C: it is running")),
    same("State", ok("running, the task's pid")),
    same("Wait", waits),
    same("Kill", ok(after="stopped", events="exit e, exit")),
    same("Kill(all)", ok(after="stopped", events="exit e, exit")),
    row("Delete", unknown("cannot delete a running process"), refused("cannot delete container C: it is running")),
    same("Exec", ok(events="exec-added n")),
    row(
        "Exec(same id)",
        Is("ALREADY_EXISTS", "id e: already exists"),
        Is("ALREADY_EXISTS", "container C has a process e already"),
    ),
    same("Start(exec)", ok("a pid", events="exec-started a")),
    same("State(exec)", ok("running, the exec's pid")),
    same("Wait(exec)", waits),
    same("Kill(exec)", ok(events="exit e")),
    row(
        "Delete(exec)",
        unknown("cannot delete a running process"),
        refused("cannot delete process e of C: it is running"),
    ),
    same("ResizePty(exec)", ok()),
    same("CloseIO(exec)", ok()),
    same("Pids", ok("the task's pid, the exec's pid (e)")),
    same("Pause", ok(after="paused", events="paused")),
    row("Resume", unknown("cannot resume a running process"), refused("cannot resume container C: it is running")),
    same("ResizePty", ok()),
    same("CloseIO", ok()),
    same("Update", ok()),
    row("Stats", _RUNC_METRICS, ok(_METRICS), note="e"),
    same("Connect", ok("the task's pid")),
    row("Checkpoint", unknown("runc did not terminate successfully"), not_there, note=_NO_CHECKPOINT),
    same("Shutdown", ok(), note="f"),
)

_PAUSED: Final = (
    _TWICE,
    row("Start", unknown("cannot start a paused process"), refused("cannot start container C: it is paused")),
    same("State", ok("paused, the task's pid")),
    same("Wait", waits),
    same("Kill", ok(after="stopped", events="exit e, exit")),
    same("Kill(all)", ok(after="stopped", events="exit e, exit")),
    row("Delete", unknown("cannot delete a paused process"), refused("cannot delete container C: it is paused")),
    row("Exec", unknown("cannot exec in a paused state"), refused("cannot exec n in container C: it is paused")),
    row(
        "Exec(same id)",
        Is("ALREADY_EXISTS", "id e: already exists"),
        Is("ALREADY_EXISTS", "container C has a process e already"),
    ),
    row(
        "Start(exec)",
        unknown("cannot exec in a paused container"),
        refused("cannot start a in container C: it is paused"),
    ),
    same("State(exec)", ok("paused, the exec's pid")),
    same("Wait(exec)", waits),
    row("Kill(exec)", ok(maybe="exit e"), ok(events="exit e"), note="g"),
    row(
        "Delete(exec)",
        unknown("cannot delete a running process"),
        refused("cannot delete process e of C: it is running"),
    ),
    same("ResizePty(exec)", ok()),
    same("CloseIO(exec)", ok()),
    same("Pids", ok("the task's pid, the exec's pid (e)")),
    row("Pause", unknown("cannot pause a paused container"), refused("cannot pause container C: it is paused")),
    same("Resume", ok(after="running", events="resumed")),
    same("ResizePty", ok()),
    same("CloseIO", ok()),
    same("Update", ok()),
    row("Stats", _RUNC_METRICS, ok(_METRICS), note="e"),
    same("Connect", ok("the task's pid")),
    row("Checkpoint", unknown("runc did not terminate successfully"), not_there, note=_NO_CHECKPOINT),
    same("Shutdown", ok(), note="f"),
)

_STOPPED: Final = (
    _TWICE,
    row("Start", unknown("cannot start a stopped process"), refused("cannot start container C: it is stopped")),
    same("State", ok("stopped, the task's pid, exit 137")),
    same("Wait", ok("exit 137")),
    row("Kill", missing("process already finished: not found"), missing("container C: process already finished")),
    row("Kill(all)", ok(), ok()),
    same("Delete", ok("the task's pid, exit 137", "NOT_FOUND", "delete")),
    row("Exec", unknown("cannot exec in a stopped state"), refused("cannot exec n in container C: it is stopped")),
    row(
        "Exec(same id)",
        Is("ALREADY_EXISTS", "id e: already exists"),
        Is("ALREADY_EXISTS", "container C has a process e already"),
    ),
    row(
        "Start(exec)",
        unknown("cannot exec in a stopped container"),
        refused("cannot start a in container C: it is stopped"),
        newest=refused("container C init process is not running"),
    ),
    same("State(exec)", ok("stopped, the exec's pid, exit 137")),
    same("Wait(exec)", ok("exit 137")),
    row("Kill(exec)", missing("process already finished: not found"), missing("e of C: process already finished")),
    same("Delete(exec)", ok("the exec's pid, exit 137")),
    row("ResizePty(exec)", unknown("cannot resize a stopped container"), ok(), note="h"),
    same("CloseIO(exec)", ok()),
    row("Pids", ok("nothing"), ok("the task's pid"), note="i"),
    row("Pause", unknown("cannot pause a stopped container"), refused("cannot pause container C: it is stopped")),
    row("Resume", unknown("cannot resume a stopped container"), refused("cannot resume container C: it is stopped")),
    same("ResizePty", ok()),
    same("CloseIO", ok()),
    row("Update", unknown("cannot update a stopped container"), refused("cannot update container C: it is stopped")),
    row("Stats", _RUNC_METRICS, ok(_METRICS), note="e"),
    same("Connect", ok("the task's pid")),
    row("Checkpoint", unknown("cannot checkpoint a stopped container"), not_there, note=_NO_CHECKPOINT),
    same("Shutdown", ok(), note="f"),
)

_NOT_CREATED: Final = missing("container not created: not found")
_CALLS: Final = [each.call for each in _STOPPED]
_STILL_THERE: Final = ("Create", "Connect", "Checkpoint", "Shutdown")
_DELETED: Final = (
    same("Create", ok("a pid", "created", "create")),
    *(row(call, _NOT_CREATED, missing("container C not found")) for call in _CALLS if call not in _STILL_THERE),
    same("Connect", ok("no pid")),
    row("Checkpoint", _NOT_CREATED, not_there, note=_NO_CHECKPOINT),
    # runc's shim now and then ends before its answer is out.
    row("Shutdown", Is(f"OK or {CLOSED}", after=CLOSED), ok(after=CLOSED), note="f"),
)

_LOST: Final = Is("UNAVAILABLE", "the virtual machine is gone: QEMU was killed by SIGKILL")
_OTHERWISE: Final = {
    "Stats": ours("Stats", missing("container C has no cgroup any more")),
    "ResizePty": ours("ResizePty", _LOST),
    "ResizePty(exec)": ours("ResizePty(exec)", _LOST),
}
# As stopped, but for what only the machine knows.
_MACHINE_DEAD: Final = tuple(_OTHERWISE.get(each.call, ours(each.call, each.ours)) for each in _STOPPED)

ROWS: Final = (
    *of("created", _CREATED),
    *of("running", _RUNNING),
    *of("paused", _PAUSED),
    *of("stopped", _STOPPED),
    *of("deleted", _DELETED),
    *of("VM dead", _MACHINE_DEAD),
    # Nothing of what a shim answers depends on containerd: all is as in the state running.
    *of("containerd gone", _RUNNING),
)
