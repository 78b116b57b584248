"""A process that finishes what another has begun, should that one be killed before it is done.

containerd kills a `delete` that takes longer than 5 s, and on a busy host any of its steps may. So the heir is there
before the first of them, and waits; it needs nobody to tell it, for what it waits at is a pipe, and the kernel closes
the other end however its process ends.
"""

from __future__ import annotations

import os

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Heir:
    """A fork that does `work` as soon as this process has ended, unless it was dismissed before.

    It has our open files, locks too, but for the standard ones: nobody who reads what we say waits for it. To be made
    before there are threads. Raises OSError where the host has no room for a process, or a pipe.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        waiting, self._alive = os.pipe()
        try:
            self.pid = os.fork()
        except OSError:
            os.close(waiting)
            os.close(self._alive)
            raise
        if self.pid == 0:
            try:
                from shim.launch import detach

                detach()
                os.close(self._alive)
                if not os.read(waiting, 1):
                    work()
            finally:
                os._exit(0)
        os.close(waiting)

    def dismiss(self) -> None:
        """There is nothing to do for it; it is gone afterwards."""
        try:
            os.write(self._alive, b"\0")
        except BrokenPipeError:  # somebody has killed it
            pass
        finally:
            os.close(self._alive)
        os.waitpid(self.pid, 0)
