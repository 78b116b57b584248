"""On which CPUs of the host a process runs: all of its threads, those to come included (sched_setaffinity(2))."""

import os
from collections.abc import Set
from typing import Final

from shim.errors import HostError

# A thread may be started while we look. One that was bound starts bound threads, so that two looks are enough.
_LOOKS: Final = 8


def bind(pid: int, cpus: Set[int]) -> None:
    """Have every thread of the process `pid` run on these CPUs and on no other; nothing if it has ended.

    Raises HostError where the kernel refuses.
    """
    bound: set[int] = set()
    for _ in range(_LOOKS):
        found = _threads(pid) - bound
        if not found:
            return
        for thread in found:
            _bind_one(thread, cpus)
        bound |= found
    raise HostError(f"process {pid} starts threads faster than they can be bound to CPUs")


def _threads(pid: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except (FileNotFoundError, ProcessLookupError):
        return set()


def _bind_one(thread: int, cpus: Set[int]) -> None:
    try:
        os.sched_setaffinity(thread, cpus)
    except ProcessLookupError:  # it has ended
        pass
    except OSError as error:  # such a CPU has gone offline, or is not in our cgroup's set
        shown = ", ".join(map(str, sorted(cpus)))
        raise HostError(f"cannot run the virtual machine on the CPUs {shown}: {error.strerror}") from error
