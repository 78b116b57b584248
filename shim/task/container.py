"""One container in a machine: its processes, and what the host holds for it."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from api import events_pb2, types_pb2
from shim.errors import GuestError, NotFoundError, StateError
from shim.events import Publisher
from shim.sandbox import Sandbox
from shim.spec import Json
from shim.task.process import Exit, Process
from shim.task.resize import Resizer
from shim.task.state import State
from ttrpc import Code


class Container:
    """A container that Create has made. `resources` undoes, in reverse, all that Create did on the host.

    `on_started` is called once the first process runs.
    """

    def __init__(
        self,
        *,
        container_id: str,
        bundle: str,
        rootfs: list[types_pb2.Mount],
        init: Process,
        sandbox: Sandbox,
        resizer: Resizer,
        resources: AsyncExitStack,
        events: Publisher,
        on_started: Callable[[], None],
    ) -> None:
        self.container_id = container_id
        self.bundle = bundle
        self.rootfs = rootfs
        self.init = init
        self.sandbox = sandbox
        self._resizer = resizer
        # Held by every call that changes the state of one of the processes.
        self.lock = asyncio.Lock()
        self._resources = resources
        self._events = events
        self._on_started = on_started

    def process(self, exec_id: str) -> Process:
        """The process that a call names. Raises NotFoundError."""
        if exec_id:
            raise NotFoundError(f"no process {exec_id} in container {self.container_id}")
        return self.init

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

    async def start(self, exec_id: str) -> int:
        """Run a process that was created; the answer is its pid."""
        process = self.process(exec_id)
        async with self.lock:
            await process.start()
            self._on_started()
        self._events.publish(events_pb2.TaskStart(container_id=self.container_id, pid=process.pid))
        process.start_told()
        return process.pid

    async def kill(self, exec_id: str, number: int, *, everyone: bool) -> None:
        """Send a signal to a process.

        SIGKILL to the first one always ends it, as it does on the host: a machine that does
        not answer is ended itself. Raises NotFoundError after the end, GuestError.
        """
        process = self.process(exec_id)
        try:
            await process.kill(number, everyone=everyone)
        except GuestError as error:
            if process is not self.init or number != signal.SIGKILL or error.status is not Code.DEADLINE_EXCEEDED:
                raise
            await self.sandbox.kill(f"SIGKILL for {process.name}: {error.message}")

    async def update(self, resources: Json) -> None:
        """Put other limits in force, with the machine's size. Raises StateError after the end, or as Resizer.update."""
        self.init.require(State.CREATED, State.RUNNING, State.PAUSED, to="update")
        await self._resizer.update(resources)

    def publish_exit(self, end: Exit) -> None:
        """Tell that the first process has ended."""
        event = events_pb2.TaskExit(
            container_id=self.container_id, id=self.container_id, pid=self.init.pid, exit_status=end.status
        )
        event.exited_at.FromNanoseconds(end.at_ns)
        self._events.publish(event)

    async def delete(self) -> Exit:
        """Remove the container from the machine and the host. Raises StateError while it runs."""
        async with self.lock:
            if self.init.state in (State.RUNNING, State.PAUSED):
                raise StateError(f"cannot delete {self.init.name}: it is {self.init.state.name.lower()}")
            self.init.move(State.DELETED)
            end = self.init.exit or Exit(0, 0)
            await self._resources.aclose()
        event = events_pb2.TaskDelete(
            container_id=self.container_id, id=self.container_id, pid=self.init.pid, exit_status=end.status
        )
        event.exited_at.FromNanoseconds(end.at_ns)
        self._events.publish(event)
        return end
