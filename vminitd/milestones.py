"""When the machine reached what, on CLOCK_BOOTTIME: nanoseconds since the kernel's start, or its template's.

The shim is told in Configure and when the container's first process runs, and lays them beside its own.
"""

import time

_marks: dict[str, int] = {}


def now_ns() -> int:
    """The clock of all marks."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def mark(name: str) -> None:
    """Notes that `name` was reached now, for the last time."""
    _marks.pop(name, None)
    _marks[name] = now_ns()


def marks() -> list[tuple[str, int]]:
    """(name, nanoseconds) in the order in which they were reached."""
    return list(_marks.items())
