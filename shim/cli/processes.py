"""What /proc says of a machine's QEMU: proc_pid_stat(5), proc_pid_statm(5)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.reclaim import command_line

_TICKS_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """A process: processor time and age in seconds, and what is in memory of it, in bytes."""

    cpu_s: float
    rss: int
    age_s: float


def usage(pid: int, key: str) -> Usage | None:
    """Of QEMU with that pid, if it is that of the machine of `key`: numbers are used again."""
    if f"qemubox-{key}".encode() not in command_line(pid):
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except OSError:  # it has just ended
        return None
    user, system, started = (int(fields[number]) / _TICKS_S for number in (11, 12, 19))
    return Usage(cpu_s=user + system, rss=pages * _PAGE, age_s=max(0.0, uptime_s - started))
