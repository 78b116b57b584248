"""A process that exec adds to a container that runs.

Exec itself asks nothing of the guest: it opens the host's ends of the streams and remembers
what is to run. Start then tells the guest of the process and runs it within one block of
`Sandbox.streams`, because that is when the guest calls for the streams. So one that is never
started costs the guest nothing, and what comes before the start is answered here: a
terminal's size is remembered, a signal is refused.

Its pid is an anchor's of its own (shim/anchor.py), made while the guest is at work and ended
with the process: were it the container's, clients would take the end of one for the end of
the other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from api import guest_pb2
from shim import deadlines
from shim.anchor import Anchor
from shim.errors import GuestError, MachineError, StateError
from shim.log import Logger
from shim.sandbox import Sandbox
from shim.task.logger import Loggers
from shim.task.process import Exit, Process, StdioPaths
from shim.task.state import State
from shim.task.stdio import ProcessStreams
from ttrpc import Code

# Exit status of a process that could not be started, as a shell gives it.
_FAILED_START: Final = 127


class ExecProcess(Process):
    """A process that is registered; `document` is the OCI process that the guest is to get.

    `new_anchor` starts an anchor, or raises HostError; `on_loss` is Process.shown_as's.
    Raises HostError or UnsupportedError where one of the streams cannot be opened.
    """

    def __init__(
        self,
        *,
        container_id: str,
        exec_id: str,
        document: bytes,
        paths: StdioPaths,
        sandbox: Sandbox,
        new_anchor: Callable[[], Awaitable[Anchor]],
        loggers: Loggers,
        on_loss: Callable[[], Awaitable[None]],
        log: Logger,
    ) -> None:
        super().__init__(container_id=container_id, exec_id=exec_id, pid=0, paths=paths, guest=sandbox.guest, log=log)
        self._document = document
        self._sandbox = sandbox
        self._new_anchor = new_anchor
        self._loggers = loggers
        self._on_loss = on_loss
        self._size: tuple[int, int] | None = None
        # Held while a start is under way.
        self._start_lock = asyncio.Lock()
        # Whether the guest has been told of it, and whether it has taken it and still has it.
        self._told = False
        self._known = False
        self._own_streams = ProcessStreams(
            terminal=paths.terminal, stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr
        )
        self.streams = self._own_streams

    async def start(self) -> guest_pb2.StartResponse:
        """Run it; the guest's answer.

        Raises StateError, GuestError, MachineError or HostError; it can only be deleted then.
        """
        self.require(State.CREATED, to="start")
        if self._start_lock.locked():
            raise StateError(f"cannot start {self.name}: it is being started")
        asked_ns = time.time_ns()
        async with self._start_lock:
            anchoring = asyncio.ensure_future(self._new_anchor())
            try:
                started = await self._start_in_guest()
                self.shown_as(await anchoring, self._on_loss)
            except BaseException:
                await self._give_up_start(anchoring)
                raise
            self.move(State.RUNNING)
            self._started_ns = asked_ns
        return started

    async def _start_in_guest(self) -> guest_pb2.StartResponse:
        request = guest_pb2.ExecRequest(container_id=self.container_id, exec_id=self.exec_id, process=self._document)
        request.stdio.terminal = self.paths.terminal
        guest = self._guest
        # Under the exec's id alone, as containerd's own shim has it.
        await self._own_streams.open(self._loggers, self.exec_id)
        async with self._sandbox.streams(self._own_streams, request.stdio):
            self._told = True
            await guest.call(guest.containers.Exec(request), deadline_s=deadlines.GUEST_CALL_S)
            self._known = True
            if self._size is not None:
                await super().resize(*self._size)
            start = guest_pb2.StartRequest(container_id=self.container_id, exec_id=self.exec_id)
            return await guest.call(guest.containers.Start(start), deadline_s=deadlines.GUEST_CRUN_S)

    async def _give_up_start(self, anchoring: "asyncio.Future[Anchor]") -> None:
        """Make a start that failed half way as if nothing had run: nobody hears of an exit, and all is let go of."""
        anchoring.cancel()
        for anchor in await asyncio.gather(anchoring, return_exceptions=True):
            if isinstance(anchor, Anchor):
                await anchor.stop()
        await self._own_streams.close()
        if self.state is State.CREATED:
            self.exit = Exit(_FAILED_START, time.time_ns())
            self.move(State.STOPPED)
        self._stopped.set()
        if not self._told:
            return
        kill = guest_pb2.KillRequest(container_id=self.container_id, exec_id=self.exec_id, signal=9)
        try:
            await self._guest.call(self._guest.containers.Kill(kill), deadline_s=deadlines.GUEST_KILL_S)
        except (GuestError, MachineError) as error:  # most often there is nothing to kill
            self._log.debug("exec that failed to start not killed", process=self.name, error=str(error))
        try:
            await self._leave_guest()
        except GuestError as error:  # Delete will try again
            self._log.warning("exec that failed to start not removed", process=self.name, error=str(error))

    async def kill(self, signal: int, *, everyone: bool) -> None:
        """Send a signal. Raises StateError before the start, NotFoundError after the end, GuestError."""
        if self.state is State.CREATED:
            raise StateError(f"cannot kill {self.name}: it has not been started")
        await super().kill(signal, everyone=everyone)

    async def resize(self, width: int, height: int) -> None:
        """Give the terminal another size, now or for its start. Raises StateError where there is none."""
        if self._known:
            await super().resize(width, height)
            return
        self.require_terminal()
        self._size = (width, height)

    @property
    def lives(self) -> bool:
        """Whether there is a process, running or frozen with its container."""
        return self.state in (State.RUNNING, State.PAUSED)

    async def settled(self) -> None:
        """Return when nothing of it is under way: it has not been started, or has ended."""
        async with self._start_lock:
            pass
        if self.lives:
            await self.wait()

    async def delete(self) -> Exit:
        """Let go of all of it, in the guest too. Raises StateError while it runs, GuestError where that keeps it."""
        if self._start_lock.locked() or self.lives:
            raise StateError(f"cannot delete {self.name}: it is running")
        await self._leave_guest()
        end = self.exit or Exit(0, 0)
        self.move(State.DELETED)
        await self.release()
        return end

    async def _leave_guest(self) -> None:
        """Make the guest forget it; a guest that is gone, or never had it, has. Raises GuestError."""
        if not self._told:
            return
        try:
            await self._guest.call(self._guest.containers.Delete(self._in_guest()), deadline_s=deadlines.GUEST_CALL_S)
        except MachineError as error:
            self._log.debug("exec went with its machine", process=self.name, error=str(error))
        except GuestError as error:
            if error.status is not Code.NOT_FOUND:
                raise
        self._told = self._known = False
