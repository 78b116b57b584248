"""When the machine reached what, on CLOCK_BOOTTIME: nanoseconds since the kernel's start.

The shim asks for them once, in Configure, and lays them beside its own.
"""

import time

_marks: list[tuple[str, int]] = []


def mark(name: str) -> None:
    """Notes that `name` was reached now."""
    _marks.append((name, time.clock_gettime_ns(time.CLOCK_BOOTTIME)))


def marks() -> list[tuple[str, int]]:
    """(name, nanoseconds) in the order in which they were reached."""
    return list(_marks)
