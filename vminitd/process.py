"""One process of a container, from its registration to its deletion.

The first process exists when it is made (crun holds it until its start); a further one is only registered. What
happens at the end is the same for both: PID 1 reaps it, its output is brought to the host, and only then does Wait
answer.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ttrpc import StatusError
from vminitd import log
from vminitd.errors import StateError, UnknownError
from vminitd.state import State, move
from vminitd.stdio import Stdio, Wish

FAILED_START = 127
"""Exit status of a process that could not be started, as a shell gives it."""


ENDS_CREATED = frozenset(
    {*range(signal.SIGHUP, signal.SIGKILL), signal.SIGSEGV, signal.SIGTERM, signal.SIGSTKFLT, signal.SIGSYS}
)
"""Signals that end a first process which has not been started.

What crun leaves waiting for the start is process 1 of its namespace and handles no signal, so that only SIGKILL reaches
it. runc's is a program in Go, which these end, with the status 2 (tried with each signal, runc 1.1.5): whoever stops a
container relies on that.
"""
ENDED_CREATED = 2


class Exit(NamedTuple):
    """How a process ended: `status` is its exit code, or 128 + n after signal n; the time is CLOCK_REALTIME."""

    status: int
    at_ns: int
    oom_kills: int
    """How many of the container's processes the kernel had killed for want of memory by then."""


class Process:
    """`exec_id` is empty for the container's first process."""

    def __init__(self, container_id: str, exec_id: str, wish: Wish) -> None:
        self.exec_id = exec_id
        self.wish = wish
        self.state = State.CREATED
        self.pid = 0
        self.stdio: Stdio | None = None
        self._name = f"process {exec_id!r} of container {container_id!r}" if exec_id else f"container {container_id!r}"
        self.gone = asyncio.Event()
        """Set when it has ended; its output may still be on its way."""
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._following: asyncio.Task[None] | None = None
        self._status_instead: int | None = None
        self.size: tuple[int, int] | None = None
        """Of its terminal, as last set: width and height in characters."""

    def __str__(self) -> str:
        return self._name

    def move(self, new: State) -> None:
        """Raises StateError if it may not."""
        self.state = move(self.state, new, str(self))

    def adopt(self, pid: int, stdio: Stdio, ended: asyncio.Future[int], ending: Callable[[], int]) -> None:
        """The process exists: from here on its end is watched.

        `ending` is called as soon as it has ended, and says how many of its container's processes were killed for want
        of memory.
        """
        self.pid = pid
        self.stdio = stdio
        if self.size is not None:
            stdio.resize(*self.size)
        self._following = asyncio.create_task(self._follow(ended, ending), name=f"exit of {self}")

    async def _follow(self, ended: asyncio.Future[int], ending: Callable[[], int]) -> None:
        status = await ended
        if self._status_instead is not None:
            status = self._status_instead
        exit_ = Exit(status, time.time_ns(), ending())
        self.move(State.STOPPED)
        self.gone.set()
        log.debug("ended", process=str(self), status=status)
        assert self.stdio is not None
        try:
            await self.stdio.finish()
        finally:
            self._ended.set_result(exit_)

    def fail(self) -> None:
        """It could not be started: as if it had ended at once."""
        self.move(State.STOPPED)
        self.gone.set()
        self._ended.set_result(Exit(FAILED_START, time.time_ns(), oom_kills=0))

    async def wait(self) -> Exit:
        """Returns when it has ended and its output is with the host; at once if so already."""
        return await asyncio.shield(self._ended)

    def kill(self, number: int) -> None:
        """Sends it a signal. Raises UnknownError if it has ended, StateError if it does not run yet."""
        if self.state in (State.STOPPED, State.DELETED):
            raise UnknownError(f"{self}: process already finished")
        if not self.pid:
            raise StateError(f"{self} is {self.state.value}, and not running yet")
        if self.state is State.CREATED and number in ENDS_CREATED:
            self._status_instead, number = ENDED_CREATED, signal.SIGKILL
        try:
            # It is our child and its state changes just after it was reaped: the pid cannot be another's yet.
            os.kill(self.pid, number)
        except ProcessLookupError:
            raise UnknownError(f"{self}: process already finished") from None

    def resize(self, width: int, height: int) -> None:
        """Sets the size of its terminal, also before there is one. Raises StateError without a terminal."""
        if not self.wish.terminal:
            raise StateError(f"{self} has no terminal")
        self.size = (width, height)
        if self.stdio is not None:
            self.stdio.resize(width, height)

    async def reap(self, deadline_s: float) -> None:
        """Kills it if it still exists, and waits until it is gone, with what of its output is read in that time.

        Raises StateError if it is not gone by then.
        """
        if self._following is None:
            return
        with suppress(StatusError):
            self.kill(signal.SIGKILL)
        try:
            async with asyncio.timeout(deadline_s):
                await self.gone.wait()
                await asyncio.shield(self._following)
        except TimeoutError:
            if not self.gone.is_set():
                raise StateError(f"{self} was killed but is still there after {deadline_s:g} s") from None
        finally:
            if self.stdio is not None:
                self.stdio.close()
