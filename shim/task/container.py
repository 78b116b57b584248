"""One container in a machine: its processes, and what the host holds for it."""

import asyncio
import functools
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from google.protobuf.any_pb2 import Any as AnyMessage

from api import events_pb2, guest_pb2, task_pb2, task_types_pb2, types_pb2
from shim import deadlines
from shim.anchor import Anchor
from shim.errors import AlreadyExistsError, GuestError, MachineError, NotFoundError, SpecError, StateError
from shim.events import Publisher
from shim.log import Logger
from shim.process_spec import process_for_guest
from shim.sandbox import Sandbox
from shim.spec import Json
from shim.task.exec import ExecProcess
from shim.task.hooks import Hooks
from shim.task.logger import Loggers
from shim.task.oom import OomWatch
from shim.task.process import Exit, Process, StdioPaths
from shim.task.resize import Resizer
from shim.task.state import State
from shim.task.stats import Statistics
from shim.task.write_back import Changes
from ttrpc import Code


class Container:
    """A container that Create has made. `resources` undoes, in reverse, all that Create did on the host.

    `before_start` settles the machine's network, with what is new to the guest, or raises HostError or SpecError;
    `on_started` is called with the guest's answer once the first process runs; `new_anchor` starts an anchor for a
    further one, or raises HostError.
    """

    def __init__(
        self,
        *,
        container_id: str,
        bundle: str,
        rootfs: list[types_pb2.Mount],
        init: Process,
        sandbox: Sandbox,
        changes: Changes,
        resizer: Resizer,
        statistics: Statistics,
        resources: AsyncExitStack,
        events: Publisher,
        before_start: Callable[[], Awaitable[guest_pb2.NetworkConfig | None]],
        on_started: Callable[[guest_pb2.StartResponse], None],
        new_anchor: Callable[[], Awaitable[Anchor]],
        hooks: Hooks,
        loggers: Loggers,
        log: Logger,
    ) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.rootfs = rootfs
        self.init = init
        self.sandbox = sandbox
        self._changes = changes
        self._resizer = resizer
        self._statistics = statistics
        self._oom = OomWatch(container_id, sandbox.guest, events, log)
        # Held by every call that changes the state of the first process, or frees one.
        self.lock = asyncio.Lock()
        self._execs: dict[str, ExecProcess] = {}
        self._pausing = False
        # The guest has told of the end of the first process; it has not been told to anybody yet.
        self._over = False
        self._insisting: asyncio.Task[None] | None = None
        self._resources = resources
        self._events = events
        self._before_start = before_start
        self._on_started = on_started
        self._new_anchor = new_anchor
        self._hooks = hooks
        self._loggers = loggers
        self._log = log

    def watch(self, anchor: Anchor) -> None:
        """Begin to wait for the end of the first process: it is told after the ends of all others, which it causes.

        `anchor` is what clients are shown of it.
        """
        self.init.shown_as(anchor, functools.partial(self._lost, ""))
        self.init.watch(functools.partial(self._publish_exit, self.init), first=self._settled)

    def process(self, exec_id: str) -> Process:
        """The process that a call names. Raises NotFoundError."""
        return self._exec(exec_id) if exec_id else self.init

    @property
    def processes(self) -> list[Process]:
        """The first process, and the others that have a pid."""
        return [self.init, *(each for each in self._execs.values() if each.lives)]

    def status(self, process: Process) -> task_types_pb2.Status:
        """What containerd is told of a process: all of those that have not ended pause with their container."""
        if process.exit is None and self._pausing:
            return task_types_pb2.PAUSING
        if process.exit is None and self.init.state is State.PAUSED:
            return task_types_pb2.PAUSED
        if process.state is State.DELETED:  # a Delete is at it, which may take a while
            return task_types_pb2.STOPPED
        return process.state.value

    def _exec(self, exec_id: str) -> ExecProcess:
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFoundError(f"no process {exec_id} in container {self.container_id}") from None

    def publish_create(self) -> None:
        """Tell that the container is there."""
        paths = self.init.paths
        self._events.publish(
            events_pb2.TaskCreate(
                container_id=self.container_id,
                bundle=self.bundle,
                rootfs=self.rootfs,
                io=events_pb2.TaskIO(
                    stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr, terminal=paths.terminal
                ),
                pid=self.init.pid,
            )
        )

    def add(self, request: task_pb2.ExecProcessRequest) -> None:
        """Exec: register a further process.

        Raises AlreadyExistsError for its id, StateError where the container is paused or has ended,
        SpecError for what it asks for, HostError or UnsupportedError for its streams.
        """
        if not request.exec_id:
            raise SpecError("the process to exec has no id")
        if request.exec_id in self._execs:
            raise AlreadyExistsError(f"container {self.container_id} has a process {request.exec_id} already")
        self.init.require(State.CREATED, State.RUNNING, to=f"exec {request.exec_id} in")
        self._execs[request.exec_id] = ExecProcess(
            container_id=self.container_id,
            exec_id=request.exec_id,
            document=process_for_guest(request.spec.value, terminal=request.terminal),
            paths=StdioPaths(request.terminal, request.stdin, request.stdout, request.stderr),
            sandbox=self.sandbox,
            new_anchor=self._new_anchor,
            loggers=self._loggers,
            on_loss=functools.partial(self._lost, request.exec_id),
            log=self._log,
        )
        self._events.publish(events_pb2.TaskExecAdded(container_id=self.container_id, exec_id=request.exec_id))

    async def start(self, exec_id: str) -> int:
        """Run a process that was created; the answer is its pid."""
        if exec_id:
            return await self._start_exec(self._exec(exec_id))
        async with self.lock:
            self.init.require(State.CREATED, to="start")
            self.init.network = await self._before_start()
            if self._over:  # killed meanwhile: an image that is marked now would be kept for ever
                raise StateError(f"cannot start {self.init.name}: it has ended")
            self._changes.begin()
            started = await self.init.start()
            await self._hooks.started(self.init.pid)
        self._events.publish(events_pb2.TaskStart(container_id=self.container_id, pid=self.init.pid))
        self.init.start_told()
        self._oom.begin()
        self._on_started(started)
        return self.init.pid

    async def _start_exec(self, process: ExecProcess) -> int:
        """Any number of them may start at once."""
        self.init.require(State.CREATED, State.RUNNING, to=f"start {process.exec_id} in")
        if self._pausing:  # the guest would refuse it, and it could not be started any more
            raise StateError(f"cannot start {process.exec_id} in {self.init.name}: it is being paused")
        await process.start()
        process.watch(functools.partial(self._publish_exit, process))
        self._events.publish(
            events_pb2.TaskExecStarted(container_id=self.container_id, exec_id=process.exec_id, pid=process.pid)
        )
        process.start_told()
        return process.pid

    async def kill(self, exec_id: str, number: int, *, everyone: bool) -> None:
        """Send a signal to a process, or to all of the container, which only the first process can stand for.

        SIGKILL to the first one always ends it, as it does on the host: a machine that does
        not answer, or not tell of the end, is ended itself. Raises NotFoundError after the end, GuestError.
        """
        process = self.process(exec_id)
        everyone = everyone and process is self.init
        if everyone and process.exit is not None:
            return  # nobody outlives the first process: all that there are have been signalled
        insists = self._insisting is None and process.exit is None and not self._over
        if process is self.init and number == signal.SIGKILL and insists:
            self._insisting = asyncio.create_task(self._insist(), name=f"end {process.name}")
        try:
            await process.kill(number, everyone=everyone)
        except GuestError as error:
            if everyone and error.status is Code.NOT_FOUND:
                return  # they have ended, and it is about to be told
            if process is not self.init or number != signal.SIGKILL or error.status is not Code.DEADLINE_EXCEEDED:
                raise
            await self.sandbox.kill(f"SIGKILL for {process.name}: {error.message}")

    async def _insist(self) -> None:
        """A guest may take SIGKILL, and not tell of the end: nobody could ever delete the container then."""
        try:
            async with asyncio.timeout(deadlines.KILLED_S):
                await self.init.wait()
        except TimeoutError:
            await self.sandbox.give_up(f"{self.init.name} has not ended {deadlines.KILLED_S:g} s after SIGKILL")

    async def _lost(self, exec_id: str) -> None:
        """Somebody has ended the host's process that stands for one of ours: it ends, too, as runc's would have."""
        try:
            await self.kill(exec_id, signal.SIGKILL, everyone=False)
        except (NotFoundError, StateError, GuestError, MachineError) as error:
            self._log.warning("not killed", process=exec_id or self.container_id, error=str(error))

    async def pause(self) -> None:
        """Have all processes stand still, and all that they wrote in their snapshot on the host.

        Raises StateError, GuestError, MachineError, ResourceError or HostError; then it runs as before.
        """
        async with self.lock:
            self.init.require(State.RUNNING, to="pause")
            self._pausing = True
            try:
                await self._pause_in_guest()
                self.init.move(State.PAUSED)
            finally:
                self._pausing = False
            self._events.publish(events_pb2.TaskPaused(container_id=self.container_id))

    async def _pause_in_guest(self) -> None:
        guest, request = self.sandbox.guest, guest_pb2.ContainerRequest(container_id=self.container_id)
        try:
            await guest.call(guest.containers.Pause(request), deadline_s=deadlines.GUEST_PAUSE_S)
        except GuestError as error:
            if error.status is Code.DEADLINE_EXCEEDED:
                # It may have heard of the pause. It hears of this after it, whenever it comes to itself.
                await self._call_off_pause()
            raise
        try:
            await self._changes.paused()
        except BaseException:
            if not self._over:
                await self._call_off_pause()
            raise

    async def _call_off_pause(self) -> None:
        guest, request = self.sandbox.guest, guest_pb2.ContainerRequest(container_id=self.container_id)
        try:
            await guest.call(guest.containers.Resume(request), deadline_s=deadlines.GUEST_KILL_S)
        except (GuestError, MachineError) as failure:
            self._log.warning("a pause could not be called off", error=str(failure))

    async def resume(self) -> None:
        """Let all go on. Raises StateError unless it is paused, GuestError; then it is paused still."""
        async with self.lock:
            self.init.require(State.PAUSED, to="resume")
            guest, request = self.sandbox.guest, guest_pb2.ContainerRequest(container_id=self.container_id)
            await guest.call(guest.containers.Resume(request), deadline_s=deadlines.GUEST_CALL_S)
            self.init.move(State.RUNNING)
            self._events.publish(events_pb2.TaskResumed(container_id=self.container_id))

    async def update(self, resources: Json) -> None:
        """Put other limits in force, with the machine's size. Raises StateError after the end, or as Resizer.update."""
        self.init.require(State.CREATED, State.RUNNING, State.PAUSED, to="update")
        await self._resizer.update(resources)

    async def stats(self) -> AnyMessage:
        """What it uses, in any state. Raises GuestError, MachineError, or NotFoundError if its machine went with it."""
        try:
            return await self._statistics.read()
        except MachineError as error:
            if self.init.exit is None:
                raise
            raise NotFoundError(f"{self.init.name} has no cgroup any more: {error}") from error

    def _publish_exit(self, process: Process, end: Exit) -> None:
        """Tell that a process has ended, and before that of what was killed by then."""
        self._oom.hear(end.oom_kills)
        if process is self.init:
            self._oom.end()
        event = events_pb2.TaskExit(
            container_id=self.container_id,
            id=process.exec_id or self.container_id,
            pid=process.pid,
            exit_status=end.status,
        )
        event.exited_at.FromNanoseconds(end.at_ns)
        self._events.publish(event)

    async def _settled(self) -> None:
        """Return when nothing of it runs any more and its changes are on the host, as far as they can be."""
        self._over = True
        if self._insisting is not None:
            self._insisting.cancel()
        await self._execs_settled()
        await self._changes.ended()

    async def copied_into(self) -> None:
        """Files were put into it. Raises NotFoundError where it is deleted meanwhile, and as Changes.copied_into."""
        async with self.lock:
            self.init.require(State.CREATED, State.RUNNING, State.PAUSED, State.STOPPED, to="copy into")
            await self._changes.copied_into()

    async def _execs_settled(self) -> None:
        """Return when no exec runs any more: they all end with the first process, whose namespace theirs is."""
        try:
            async with asyncio.timeout(deadlines.DRAIN_S):
                for process in tuple(self._execs.values()):
                    await process.settled()
        except TimeoutError:
            self._log.warning("execs outlast their container", container=self.container_id, waited_s=deadlines.DRAIN_S)

    async def delete(self, exec_id: str) -> Exit:
        """Free a process, and with the first one the container. Raises StateError while it runs, or NotFoundError."""
        async with self.lock:
            if not exec_id:
                return await self._delete_container()
            process = self._exec(exec_id)
            end = await process.delete()
            del self._execs[exec_id]
            return end

    async def _end_unstarted(self) -> None:
        """One that was never started ends like any other before it is deleted, with its execs and an exit told."""
        try:
            await self.kill("", signal.SIGKILL, everyone=False)
        except (NotFoundError, GuestError, MachineError) as error:  # it has ended already, and will be seen to
            self._log.debug("not killed before its delete", container=self.container_id, error=str(error))
        try:
            async with asyncio.timeout(deadlines.DRAIN_S):
                await self.init.wait()
        except TimeoutError:
            self._log.warning("not ended before its delete", container=self.container_id, waited_s=deadlines.DRAIN_S)

    async def _delete_container(self) -> Exit:
        """Remove it from the machine and the host."""
        if self.init.state is State.CREATED:
            await self._end_unstarted()
        self.init.require(State.CREATED, State.STOPPED, to="delete")
        self.init.move(State.DELETED)
        if self._insisting is not None:
            self._insisting.cancel()
        end = self.init.exit or Exit(0, 0)
        for process in self._execs.values():
            await process.release()
        await self._resources.aclose()
        event = events_pb2.TaskDelete(
            container_id=self.container_id, id=self.container_id, pid=self.init.pid, exit_status=end.status
        )
        event.exited_at.FromNanoseconds(end.at_ns)
        self._events.publish(event)
        return end
