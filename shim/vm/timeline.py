"""When a machine reached what, host and guest on one clock.

That is the host's CLOCK_BOOTTIME. The guest's milestones are on its own, which begins with
its kernel, or its template's. An answer of the guest's says what its clock showed when it
was sent, so the two are apart by at most what the host's shows when it is received; the
least of several such bounds is taken, which is off by the quickest answer's way.
"""

import time
from collections.abc import Iterable
from typing import Final

# The machine has become a template's clone; and what its guest was doing when that was frozen.
RESTORED: Final = "restored"
WAITING: Final = "waiting"


def boottime_ns() -> int:
    """Nanoseconds on CLOCK_BOOTTIME."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Timeline:
    """Named instants in the order they were reached; the first is the origin of the rest."""

    def __init__(self) -> None:
        self._marks: list[tuple[str, int]] = []
        # How far the host's clock is ahead of the guest's, at most; None before its first answer.
        self._ahead_ns: int | None = None
        self._guest: dict[str, int] = {}

    def mark(self, name: str, at_ns: int | None = None) -> None:
        """Note that `name` was reached now, or at `at_ns` on CLOCK_BOOTTIME."""
        self._marks.append((name, boottime_ns() if at_ns is None else at_ns))

    @property
    def marks(self) -> list[tuple[str, int]]:
        """(name, nanoseconds on CLOCK_BOOTTIME), as marked."""
        return list(self._marks)

    def hear(self, milestones: Iterable[tuple[str, int]], guest_now_ns: int, now_ns: int | None = None) -> None:
        """Take over the guest's milestones from an answer that has just come: names, and instants on its clock."""
        ahead_ns = (boottime_ns() if now_ns is None else now_ns) - guest_now_ns
        self._ahead_ns = ahead_ns if self._ahead_ns is None else min(self._ahead_ns, ahead_ns)
        self._guest = dict(milestones)

    @property
    def last(self) -> str:
        """The name marked last: how far the machine has come. Empty before the first."""
        return self._marks[-1][0] if self._marks else ""

    def milliseconds(self) -> dict[str, float]:
        """Milliseconds from the first mark to each, by name, in the order of time; the guest's are `guest <name>`."""
        if not self._marks:
            return {}
        origin = self._marks[0][1]
        marks = sorted([*self._marks, *self._guest_marks()], key=lambda mark: mark[1])
        return {name: round((at_ns - origin) / 1e6, 1) for name, at_ns in marks}

    def _guest_marks(self) -> list[tuple[str, int]]:
        """The guest's on our clock: a clone's only from where its template was frozen, waiting."""
        if self._ahead_ns is None:
            return []
        names = list(self._guest)
        if any(name == RESTORED for name, _ in self._marks) and WAITING in names:
            names = names[names.index(WAITING) + 1 :]
        return [(f"guest {name}", self._guest[name] + self._ahead_ns) for name in names]
