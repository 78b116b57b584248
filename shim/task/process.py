"""One process of a container: its state, its streams, and its end.

The container's first process and those that exec adds are the same here. What ends a
process is one task that waits for the guest's word, then for the last byte of output;
only then is the process STOPPED, its exit published and every Wait answered, so that
nobody deletes what is still being read (traps 2 and 3).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from api import guest_pb2
from shim import deadlines, untrusted
from shim.anchor import Anchor
from shim.errors import GuestError, MachineError, NotFoundError, StateError
from shim.guest import Guest
from shim.log import Logger
from shim.task.state import State, allowed
from shim.task.stdio import ProcessStreams

# What a process is said to have died of when its machine went away under it: 128 + SIGKILL.
_MACHINE_GONE: Final = 137


@dataclass(frozen=True, slots=True)
class StdioPaths:
    """The streams as the task API names them; State gives them back (attaching relies on it)."""

    terminal: bool
    stdin: str
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended; `at_ns` counts from 1970, `oom_kills` its container's processes killed by then."""

    status: int
    at_ns: int
    oom_kills: int = 0


class Process:
    """A process in the guest, created. `pid` is what clients are told. One that exec adds: shim/task/exec.py."""

    def __init__(
        self, *, container_id: str, exec_id: str, pid: int, paths: StdioPaths, guest: Guest, log: Logger
    ) -> None:
        self.container_id = container_id
        self.exec_id = exec_id
        self.pid = pid
        self.paths = paths
        self.state = State.CREATED
        self.exit: Exit | None = None
        self.streams: ProcessStreams | None = None
        self._guest = guest
        self._log = log
        self._stopped = asyncio.Event()
        # Held while a Start is under way: the start event goes out before the exit of even the fastest process.
        self._start_told = asyncio.Event()
        # What the machine's network is to become with the start; None: it is as it is to be.
        self.network: guest_pb2.NetworkConfig | None = None
        # On the host's clock; 0 before the start.
        self._started_ns = 0
        self._watcher: asyncio.Task[None] | None = None
        self._anchor: Anchor | None = None
        self._guard: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return f"process {self.exec_id} of {self.container_id}" if self.exec_id else f"container {self.container_id}"

    def move(self, after: State) -> None:
        """Change the state. Raises StateError where there is no such move."""
        if not allowed(self.state, after):
            raise StateError(f"{self.name} is {self.state.name.lower()}: it cannot become {after.name.lower()}")
        self.state = after

    def require(self, *states: State, to: str) -> None:
        """Raise StateError unless the process is in one of `states`, NotFoundError where a Delete came before."""
        if self.state is State.DELETED:
            raise NotFoundError(f"{self.name} not found")
        if self.state not in states:
            raise StateError(f"cannot {to} {self.name}: it is {self.state.name.lower()}")

    def require_terminal(self) -> None:
        """Raise StateError where there is none."""
        if not self.paths.terminal:
            raise StateError(f"{self.name} has no terminal to resize")

    def watch(self, on_exit: Callable[[Exit], None], *, first: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin to wait for the end; `on_exit` is called once, before any Wait is answered.

        `first` is what must be over before anybody hears of the end.
        """
        self._watcher = asyncio.create_task(self._watch(on_exit, first), name=f"watch {self.name}")

    def shown_as(self, anchor: Anchor, on_loss: Callable[[], Awaitable[None]]) -> None:
        """Show the anchor's pid, and end it with the process; `on_loss` is called when somebody else has ended it."""
        self.pid = anchor.pid
        self._anchor = anchor
        self._guard = asyncio.create_task(self._guard_anchor(anchor, on_loss), name=f"guard {self.name}")

    async def _guard_anchor(self, anchor: Anchor, on_loss: Callable[[], Awaitable[None]]) -> None:
        await asyncio.shield(anchor.ended)
        self._log.warning("somebody has ended the process that stands for it", process=self.name, pid=anchor.pid)
        await on_loss()

    async def stop_anchor(self) -> None:
        """The pid that clients are shown ends with the process."""
        if self._guard is not None:
            self._guard.cancel()
        if self._anchor is None:
            return
        try:
            await self._anchor.stop()
        except TimeoutError:
            self._log.error("anchor does not end", process=self.name, pid=self._anchor.pid)

    async def start(self) -> guest_pb2.StartResponse:
        """Run what was created; the guest's answer. Raises StateError, GuestError or MachineError."""
        self.require(State.CREATED, to="start")
        self.move(State.RUNNING)
        self._started_ns = time.time_ns()
        try:
            request = guest_pb2.StartRequest(container_id=self.container_id, wall_clock_ns=self._started_ns)
            if self.network is not None:
                request.network.CopyFrom(self.network)
            start = self._guest.containers.Start(request)
            return await self._guest.call(start, deadline_s=deadlines.GUEST_CRUN_S)
        except BaseException:
            # No start event follows, also where containerd went away during the call. But the process ends: the
            # watcher hears of it from the guest, or of the machine's end, and must not wait for that event.
            self._start_told.set()
            raise

    def start_told(self) -> None:
        """The start event is out: the exit may follow."""
        self._start_told.set()

    async def wait(self) -> Exit:
        """Return how it ended, now or later."""
        await self._stopped.wait()
        assert self.exit is not None
        return self.exit

    async def kill(self, signal: int, *, everyone: bool) -> None:
        """Send a signal. Raises NotFoundError after the end, GuestError."""
        if self.exit is not None or self.state is State.DELETED:
            raise NotFoundError(f"{self.name}: process already finished")
        request = guest_pb2.KillRequest(
            container_id=self.container_id, exec_id=self.exec_id, signal=signal, all=everyone
        )
        await self._guest.call(self._guest.containers.Kill(request), deadline_s=deadlines.GUEST_KILL_S)

    async def resize(self, width: int, height: int) -> None:
        """Give the terminal another size, in characters, at any time. Raises StateError where there is none."""
        self.require_terminal()
        request = guest_pb2.ResizePtyRequest(
            container_id=self.container_id, exec_id=self.exec_id, width=width, height=height
        )
        await self._guest.call(self._guest.containers.ResizePty(request), deadline_s=deadlines.GUEST_CALL_S)

    async def release(self) -> None:
        """Let go of the streams, the watcher and the anchor; whoever still waits for an end hears of this one."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self.streams is not None:
            await self.streams.close()
        await self.stop_anchor()
        if self.exit is None:
            self.exit = Exit(_MACHINE_GONE, time.time_ns())
        self._stopped.set()

    def _in_guest(self) -> guest_pb2.ProcessRequest:
        """The process as the guest is asked about it."""
        return guest_pb2.ProcessRequest(container_id=self.container_id, exec_id=self.exec_id)

    async def _watch(self, on_exit: Callable[[Exit], None], first: Callable[[], Awaitable[None]] | None) -> None:
        try:
            reply = await self._guest.call(self._guest.containers.Wait(self._in_guest()), deadline_s=None)
            at_ns = self._within_life(untrusted.nanoseconds(reply.exited_at))
            end = Exit(untrusted.status(reply.exit_status), at_ns, reply.oom_kills)
        except (GuestError, MachineError) as error:
            self._log.warning("exit not seen", process=self.name, error=str(error))
            end = Exit(_MACHINE_GONE, time.time_ns())
        await self._drain()
        if self.state is not State.CREATED:  # one that was killed before its start has none to tell of
            await self._start_told.wait()
        if first is not None:
            await first()
        await self.stop_anchor()
        self.exit = end
        self.move(State.STOPPED)
        try:
            on_exit(end)
        finally:
            self._stopped.set()

    def _within_life(self, at_ns: int) -> int:
        """A time by the guest's clock, which may be off, or lie: after the start by ours, and not to come."""
        return min(max(at_ns, self._started_ns), time.time_ns())

    async def _drain(self) -> None:
        if self.streams is None:
            return
        try:
            async with asyncio.timeout(deadlines.DRAIN_S):
                for problem in await self.streams.drained():
                    self._log.warning("output lost", process=self.name, error=problem)
        except TimeoutError:
            self._log.warning("output not read to its end", process=self.name, waited_s=deadlines.DRAIN_S)
