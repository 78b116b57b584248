"""The one place where child processes are reaped.

PID 1 is the parent of three kinds of processes: crun, which it starts; the containers' processes, which crun starts
and leaves behind; and orphans of those. Only waitpid(-1) sees them all, and whoever else waits for a pid would race
with it, so asyncio's subprocess module is not used and every end is handed out from here.

A pid that is expected before it ends is simple: spawn and `expect` follow each other without an await. A container's
process may end before crun has written down its pid; so while an adoption is under way (`adopting`), ends that
nobody expects are kept, and only then. Kept any longer, they could be taken for a later process with the same pid.
"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Reaper:
    """Waits for all children. Belongs to one event loop and, as long as it is open, to the whole process."""

    def __init__(self) -> None:
        self._expected: dict[int, asyncio.Future[int]] = {}
        self._unclaimed: dict[int, int] = {}
        self._adoptions = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.reap)

    def close(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def expect(self, pid: int) -> asyncio.Future[int]:
        """The exit status of the child `pid`, once it has ended: its exit code, or 128 + n after signal n.

        Only for a child that cannot have been reaped yet, or inside `adopting`.
        """
        ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        status = self._unclaimed.pop(pid, None)
        if status is not None:
            ended.set_result(status)
        else:
            self._expected[pid] = ended
        return ended

    @contextmanager
    def adopting(self) -> Iterator[None]:
        """Keeps the ends of unknown children, for a process that somebody else starts and leaves to PID 1."""
        self._adoptions += 1
        try:
            yield
        finally:
            self._adoptions -= 1
            if not self._adoptions:
                self._unclaimed.clear()

    def reap(self) -> None:
        """Takes every child that has ended. One SIGCHLD may stand for many."""
        while True:
            try:
                pid, raw = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            status = exit_status(raw)
            ended = self._expected.pop(pid, None)
            if ended is not None:
                if not ended.done():
                    ended.set_result(status)
            elif self._adoptions:
                self._unclaimed[pid] = status


def exit_status(raw: int) -> int:
    """A wait(2) status as a shell and containerd count it: the exit code, or 128 + n after signal n."""
    code = os.waitstatus_to_exitcode(raw)
    return code if code >= 0 else 128 - code
