"""When a machine reached what, on the clock that the guest's kernel cannot bend.

CLOCK_BOOTTIME is what the guest's own milestones are on too (its own zero, though),
and what containerd's and the shim's logs can be laid beside.
"""

import time


def boottime_ns() -> int:
    """Nanoseconds on CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Timeline:
    """Named instants in the order they were reached; the first is the origin of the rest."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, int]] = []

    def mark(self, name: str, at_ns: int | None = None) -> None:
        """Note that `name` was reached now, or at `at_ns` on CLOCK_BOOTTIME."""
        self._marks.append((name, boottime_ns() if at_ns is None else at_ns))

    @property
    def marks(self) -> list[tuple[str, int]]:
        """(name, nanoseconds on CLOCK_BOOTTIME), as marked."""
        return list(self._marks)

    @property
    def last(self) -> str:
        """The name marked last: how far the machine has come. Empty before the first."""
        return self._marks[-1][0] if self._marks else ""

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds from the first mark to each, by name; for one line of the log."""
        if not self._marks:
            return {}
        origin = self._marks[0][1]
        return {name: round((at_ns - origin) / 1e6, 1) for name, at_ns in self._marks}
