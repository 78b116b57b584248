"""A task service with containers whose machine is a stand-in, and a client for it over real ttrpc."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import cast

from google.protobuf.message import Message

from api import guest_pb2, task_pb2
from api.task_ttrpc import TaskStub
from shim.anchor import Anchor
from shim.events import Publisher
from shim.guest import Guest
from shim.journal import Journal
from shim.log import Logger
from shim.task.container import Container
from shim.task.create import Creator
from shim.task.logger import Loggers
from shim.task.resize import Resizer
from shim.task.service import TaskService
from shim.task.stats import Statistics
from shim.task.write_back import Changes
from tests.unit.shim.task.world import World, network_as_it_is, no_hooks
from ttrpc import Client, Server


class Told(Publisher):
    """Keeps what is published."""

    def __init__(self) -> None:
        self.events: list[Message] = []
        self.waiting_now = 0

    @property
    def waiting(self) -> int:
        return self.waiting_now

    def publish(self, event: Message) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        """What was told, in short."""
        return [type(event).__name__ for event in self.events]


class StandInAnchor(Anchor):
    """A pid without a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.lives = True
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        self.lives = False
        if not self.ended.done():
            self.ended.set_result(None)


class Made(Creator):
    """Makes containers whose guest is a World."""

    def __init__(self, log: Logger, told: Told) -> None:
        self.log = log
        self.told = told
        self.worlds: list[World] = []
        self.new_changes: Callable[[str, Guest], Changes] = lambda container_id, guest: Changes(
            container_id, guest, None, enabled=False, log=log
        )
        self.new_world: Callable[[Logger], World] = World
        self.before_start: Callable[[], Awaitable[guest_pb2.NetworkConfig | None]] = network_as_it_is
        self.error: Exception | None = None
        self.creating = asyncio.Event()
        self.may_create = asyncio.Event()
        self.may_create.set()
        self.may_release = asyncio.Event()
        self.may_release.set()
        self.undone: list[str] = []
        self.first_anchor: StandInAnchor | None = None
        self.anchors: list[StandInAnchor] = []
        self.anchor_error: Exception | None = None

    async def create(self, request: task_pb2.CreateTaskRequest) -> Container:
        """What Create does, without a machine."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, request.id)
            self.creating.set()
            await self.may_create.wait()
            if self.error is not None:
                raise self.error
            world = self.new_world(self.log)
            self.worlds.append(world)
            undo.push_async_callback(world.process.release)
            container = Container(
                container_id=request.id,
                bundle=request.bundle,
                rootfs=list(request.rootfs),
                init=world.process,
                sandbox=world.sandbox,
                statistics=Statistics(request.id, world.sandbox.guest),
                changes=self.new_changes(request.id, world.sandbox.guest),
                resizer=cast("Resizer", None),
                resources=undo.pop_all(),
                events=self.told,
                before_start=self.before_start,
                on_started=lambda _: None,
                new_anchor=self._stand_in_anchor,
                hooks=no_hooks(self.log),
                loggers=Loggers("default", Journal("/nonexistent"), self.log),
                log=self.log,
            )
        self.first_anchor = StandInAnchor(world.process.pid)
        container.watch(self.first_anchor)
        return container

    async def _stand_in_anchor(self) -> Anchor:
        if self.anchor_error is not None:
            raise self.anchor_error
        self.anchors.append(StandInAnchor(100 + len(self.anchors)))
        return self.anchors[-1]

    async def _undo(self, container_id: str) -> None:
        await self.may_release.wait()
        self.undone.append(container_id)


class Shim:
    """A task service with one client."""

    def __init__(self, log: Logger) -> None:
        self.told = Told()
        self.made = Made(log, self.told)
        # Whether the end is under way, whether it may come, and how often it did.
        self.stopping = asyncio.Event()
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.stops = 0
        self.service = TaskService(self.made, shim_pid=77, stop=self._stop, log=log)
        self.server = Server([self.service], aliases={"containerd.task.v2.Task": "containerd.task.v3.Task"})
        self.serving: list[asyncio.Task[None]] = []
        self.clients: list[Client] = []
        self.task = self.connect()

    async def _stop(self) -> None:
        self.stopping.set()
        await self.may_stop.wait()
        self.stops += 1

    def connect(self) -> TaskStub:
        """A further connection of containerd's."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.serving.append(asyncio.create_task(self.server.serve(theirs)))
        self.clients.append(Client(ours))
        return TaskStub(self.clients[-1])

    async def create(self, container_id: str = "c") -> World:
        """Create, as containerd calls it."""
        request = task_pb2.CreateTaskRequest(id=container_id, bundle="/b", stdout="/o", terminal=False)
        assert (await self.task.Create(request, timeout_s=20)).pid == 5
        return self.made.worlds[-1]

    async def start(self) -> None:
        """Start the first process."""
        assert (await self.task.Start(task_pb2.StartRequest(id="c"), timeout_s=20)).pid == 5

    async def close(self) -> None:
        """Let go of everything."""
        for client in self.clients:
            await client.close()
        await self.server.close(0)
        await asyncio.gather(*self.serving)
        for world in self.made.worlds:
            await world.close()
