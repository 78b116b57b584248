"""Processor time that processes have used: their CPU clocks, to the nanosecond (clock_getcpuclockid(3)).

/proc/PID/stat counts the same in ticks of 10 ms, which is more than most of what is measured here.
"""

import time
from collections.abc import Iterable
from typing import Final

import psutil

from tests.bench.memory import kind

_MS: Final = 1e6
# include/linux/posix-timers_types.h, CPUCLOCK_SCHED: the low bits of the clock of a process; above them is its pid,
# inverted.
_PROCESS_CLOCK: Final = 2


def used_ms(pid: int) -> float:
    """By all threads of a process, those that have ended too. Raises OSError if there is no such process."""
    return time.clock_gettime_ns((~pid << 3) | _PROCESS_CLOCK) / _MS


def by_kind(processes: Iterable[psutil.Process]) -> dict[str, float]:
    """Milliseconds by kind of process (memory.py)."""
    used: dict[str, float] = {}
    for process in processes:
        name = kind(" ".join(process.cmdline()))
        used[name] = used.get(name, 0.0) + used_ms(process.pid)
    return used
