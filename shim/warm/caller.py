"""What the kernel says of the `start` that asks, and how a child of the service becomes like it.

A fork of `start` inherits from it, and through it from containerd: where it is (namespaces, root
directory), what it may do (user, capabilities, security labels), and how it runs (limits,
priorities, umask, working directory). A fork of the service must end up the same. What can be
taken over is taken over; where the rest differs, `start` makes the shim itself.

Not among them is the control group: shims that the service makes are in the service's
(docs/limitations.md).

All is read from /proc by the pid of the connection's other end. That pid may end, and become
another process's; so whoever has looked makes sure afterwards that the connection still stands.
"""

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Of /proc/PID/status. Two with filters of their own (Seccomp 2) count as the same where they have as many.
_RIGHTS: Final = ("Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Seccomp_filters")
# The security module's label; files that a kernel may not have, or refuse to have read.
_LABELS: Final = ("attr/current", "personality")
_LIMITS: Final = tuple(
    number for name, number in vars(resource).items() if name.startswith("RLIMIT_") and isinstance(number, int)
)


def standing(pid: int | str) -> dict[str, str]:
    """Where a process is and what it may do: what it has of a fork's inheritance that cannot be taken over.

    Raises OSError where there is no such process any more.
    """
    proc = Path("/proc", str(pid))
    found = {f"{name} namespace": os.readlink(proc / "ns" / name) for name in os.listdir(proc / "ns")}
    root = os.stat(proc / "root")
    found["root directory"] = f"{root.st_dev}:{root.st_ino}"
    status = _status(proc)
    found |= {name: status.get(name, "") for name in _RIGHTS}
    return found | {name: _label(proc / name) for name in _LABELS}


def _label(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\n\0")
    except OSError:  # there is no such module
        return ""


def _status(proc: Path) -> dict[str, str]:
    lines = (proc / "status").read_text(errors="replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@dataclass(frozen=True)
class Caller:
    """One `start`, as `look` has found it."""

    standing: dict[str, str]
    # Device and inode of its program, the Python interpreter.
    program: tuple[int, int]
    # What it was executed with; what its program has put into its environment since is in the request.
    command_line: bytes
    environment: bytes
    name: bytes
    directory: int  # opened
    umask: int
    groups: list[int]
    limits: dict[int, tuple[int, int]]
    oom_score_adj: str
    cpus: set[int]
    nice: int
    policy: tuple[int, int]

    def differs_from(self, ours: dict[str, str]) -> str:
        """Where the caller is elsewhere, or may do something else, than `ours`; empty where it does not."""
        names = sorted(ours.keys() | self.standing.keys())
        return ", ".join(
            f"{name} {self.standing.get(name, '')!r} is not our {ours.get(name, '')!r}"
            for name in names
            if self.standing.get(name) != ours.get(name)
        )


def look(pid: int) -> Caller:
    """All that a fork of this process would have of it. Raises OSError where there is none any more."""
    proc = Path("/proc", str(pid))
    program = os.stat(proc / "exe")
    status = _status(proc)
    return Caller(
        standing=standing(pid),
        program=(program.st_dev, program.st_ino),
        command_line=(proc / "cmdline").read_bytes(),
        environment=(proc / "environ").read_bytes(),
        name=(proc / "comm").read_bytes().rstrip(b"\n"),
        directory=os.open(proc / "cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC),
        umask=int(status["Umask"], 8),
        groups=[int(group) for group in status["Groups"].split()],
        limits={number: resource.prlimit(pid, number) for number in _LIMITS},
        oom_score_adj=(proc / "oom_score_adj").read_text(),
        cpus=os.sched_getaffinity(pid),
        nice=os.getpriority(os.PRIO_PROCESS, pid),
        policy=(os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority),
    )


def become_like(caller: Caller, environment: list[bytes]) -> None:
    """Take over what can be; the working directory is the caller's then. Raises OSError or ValueError."""
    os.environb.clear()
    os.environb.update(dict(_variable(entry) for entry in environment))
    time.tzset()
    os.fchdir(caller.directory)
    os.close(caller.directory)
    os.umask(caller.umask)
    if sorted(os.getgroups()) != sorted(caller.groups):
        os.setgroups(caller.groups)
    for number, limits in caller.limits.items():
        if resource.getrlimit(number) != limits:
            resource.setrlimit(number, limits)
    _write("/proc/self/oom_score_adj", caller.oom_score_adj)
    if os.sched_getaffinity(0) != caller.cpus:
        os.sched_setaffinity(0, caller.cpus)
    policy, priority = caller.policy
    if os.sched_getscheduler(0) != policy or os.sched_getparam(0).sched_priority != priority:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    if os.getpriority(os.PRIO_PROCESS, 0) != caller.nice:
        os.setpriority(os.PRIO_PROCESS, 0, caller.nice)


def _variable(entry: bytes) -> tuple[bytes, bytes]:
    name, _, value = entry.partition(b"=")
    return name, value


def _write(path: str, text: str) -> None:
    """Only what is another: to lower a score takes CAP_SYS_RESOURCE."""
    with open(path, "r+") as file:
        if file.read() != text:
            file.seek(0)
            file.write(text)
