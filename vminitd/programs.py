"""Programs of the administrator's in the guest's own root: `qemubox exec --vm`.

They are outside of every container, and see all of the machine: that is what they are for. They are children of PID 1
in its own cgroup, each leads a session of its own, and has a time after which that is ended.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from vminitd import deadlines, log
from vminitd.dial import Dial
from vminitd.errors import KernelError, RequestError, UnknownError
from vminitd.reaper import Reaper
from vminitd.spawn import PATH, spawn
from vminitd.stdio import Stdio, Wish

PROGRAMS_MOST = 8
"""That run at a time, or whose end nobody has asked for."""


class End(NamedTuple):
    """How a program ended: its exit code, or 128 + n after signal n; whether its time was up."""

    status: int
    late: bool


class Program:
    """One that runs, or has ended; `ended` is done when its output is with the host."""

    def __init__(self, pid: int, stdio: Stdio, exited: asyncio.Future[int], limit_s: float) -> None:
        self.pid = pid
        self._stdio = stdio
        self.gone = asyncio.Event()
        self._late = False
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._time_is_up)
        self.ended = asyncio.create_task(self._follow(exited), name=f"program {pid}")

    def end(self) -> None:
        """Kill its session's processes that are still in its group. Does no harm to one that has ended."""
        if not self.gone.is_set():  # the pid is still its own
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _time_is_up(self) -> None:
        self._late = True
        self.end()

    async def _follow(self, exited: asyncio.Future[int]) -> End:
        try:
            status = await exited
            self.gone.set()
            await self._stdio.finish()
        finally:
            self._timer.cancel()
            self._stdio.close()
        return End(status, self._late)


class Programs:
    """All of them, by numbers of ours."""

    def __init__(self, reaper: Reaper, dial: Dial) -> None:
        self._reaper = reaper
        self._dial = dial
        self._programs: dict[int, Program] = {}
        self._starting = 0
        self._last = 0

    async def run(self, arguments: Sequence[bytes], wish: Wish, limit_s: float) -> tuple[int, Program]:
        """Start one. Raises RequestError, UnknownError where there is no such program, KernelError."""
        if not arguments or not arguments[0] or any(b"\0" in word for word in arguments):
            raise RequestError("a program has a name, and no NUL in its arguments")
        if wish.terminal:
            raise RequestError("a program of the machine has no terminal: its console has (debug.guest_console)")
        if len(self._programs) + self._starting >= PROGRAMS_MOST:
            raise RequestError(f"{PROGRAMS_MOST} programs run already: wait for one to end")
        path = find(os.fsdecode(arguments[0]))
        self._starting += 1
        try:
            stdio = await Stdio.open(wish, self._dial)
        finally:
            self._starting -= 1
        try:
            assert stdio.child is not None
            words = [path, *map(os.fsdecode, arguments[1:])]
            pid = spawn(words, stdin=stdio.child.stdin, stdout=stdio.child.stdout, stderr=stdio.child.stderr)
        except OSError as error:
            stdio.close()
            raise KernelError(f"cannot start {path}: {error.strerror}") from error
        except BaseException:
            stdio.close()
            raise
        exited = self._reaper.expect(pid)
        stdio.begin()
        log.info("an administrator's program runs", path=path, pid=pid)
        self._last += 1
        program = self._programs[self._last] = Program(pid, stdio, exited, limit_s)
        return self._last, program

    async def ended(self, number: int) -> End:
        """Its end, once it has come; it is forgotten then, and ended where nobody waits any more."""
        program = self._program(number)
        try:
            return await asyncio.shield(program.ended)
        finally:
            program.end()
            self._programs.pop(number, None)

    def end(self, number: int) -> None:
        """End it. Raises UnknownError."""
        self._program(number).end()

    async def close(self) -> None:
        """End all, and wait until they are gone, for a while; output that was not sent is lost."""
        programs = [*self._programs.values()]
        for program in programs:
            program.end()
        if programs:
            waits = [asyncio.create_task(program.gone.wait()) for program in programs]
            _, pending = await asyncio.wait(waits, timeout=deadlines.KILLED)
            for task in (*pending, *(program.ended for program in programs)):
                task.cancel()
            await asyncio.gather(*(program.ended for program in programs), return_exceptions=True)

    def _program(self, number: int) -> Program:
        program = self._programs.get(number)
        if program is None:
            raise UnknownError(f"there is no program {number}")
        return program


def find(name: str) -> str:
    """The path of a program that is named by path, or by a name in PATH. Raises UnknownError."""
    places = [name] if "/" in name else [f"{directory}/{name}" for directory in PATH.split(":")]
    for path in places:
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise UnknownError(f"{name}: the guest's root has no such program; it has Python (python3.13) and crun")
