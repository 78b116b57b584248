"""What the service keeps ready for its children: files that it has open, by name.

The service makes one before it takes its first connection, and refreshes it when it is told to
(SIGHUP). A child keeps the files open, and finds them through `inherited`; a shim that `start` has
forked itself has inherited none.
"""

import os
from collections.abc import Collection


class Holdings:
    """Open files by name. The service closes none of them itself."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}

    def hold(self, name: str, fd: int) -> None:
        """Keep `fd`, in the place of what was kept by that name."""
        if (before := self.fds.get(name)) is not None:
            os.close(before)
        self.fds[name] = fd

    def keep_only(self, names: Collection[str]) -> None:
        """Let go of everything else."""
        for name in set(self.fds).difference(names):
            os.close(self.fds.pop(name))


_inherited: Holdings | None = None


def inherited() -> Holdings:
    """What this shim has from the service; nothing where it is no fork of it."""
    return Holdings() if _inherited is None else _inherited


def inherit(holdings: Holdings) -> None:
    """In a child of the service: have these from now on."""
    global _inherited
    _inherited = holdings
