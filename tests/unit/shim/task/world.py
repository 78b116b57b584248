"""A process of the shim whose guest is a stand-in for vminitd behind a real ttrpc connection."""

import asyncio
import socket

from google.protobuf.empty_pb2 import Empty

from api import guest_pb2
from api.guest_ttrpc import ContainersBase
from shim.guest import Guest
from shim.log import Logger
from shim.task.process import Exit, Process, StdioPaths
from shim.vm.states import Exit as MachineExit
from ttrpc import Client, Context, Server, StatusError


class Vminitd(ContainersBase):
    """Does what it is told by the test."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[guest_pb2.WaitResponse] = asyncio.get_running_loop().create_future()
        self.starting = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.start_error: StatusError | None = None
        self.kills: list[tuple[int, bool]] = []

    def end(self, status: int) -> None:
        """The process has ended."""
        response = guest_pb2.WaitResponse(exit_status=status)
        response.exited_at.FromNanoseconds(123_000_000_456)
        self.ended.set_result(response)

    async def Start(self, request: guest_pb2.ProcessRequest, context: Context) -> guest_pb2.StartResponse:
        self.starting.set()
        await self.may_start.wait()
        if self.start_error is not None:
            raise self.start_error
        return guest_pb2.StartResponse(pid=9)

    async def Wait(self, request: guest_pb2.ProcessRequest, context: Context) -> guest_pb2.WaitResponse:
        return await asyncio.shield(self.ended)

    async def Kill(self, request: guest_pb2.KillRequest, context: Context) -> Empty:
        self.kills.append((request.signal, request.all))
        return Empty()


class World:
    """A process, its guest, and what was told of it."""

    def __init__(self, log: Logger) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.vminitd = Vminitd()
        self.server = Server([self.vminitd])
        self.serving = asyncio.create_task(self.server.serve(theirs))
        self.died: asyncio.Future[MachineExit] = asyncio.get_running_loop().create_future()
        self.guest = Guest(Client(ours), self.died)
        paths = StdioPaths(terminal=False, stdin="", stdout="", stderr="")
        self.process = Process(container_id="c", exec_id="", pid=5, paths=paths, guest=self.guest, log=log)
        self.exits: list[Exit] = []

    def watch(self) -> None:
        """Begin to wait for the end."""
        self.process.watch(self.exits.append)

    async def start(self) -> None:
        """Start, with its event."""
        await self.process.start()
        self.process.start_told()

    async def wait(self) -> Exit:
        """What Wait answers."""
        return await asyncio.wait_for(self.process.wait(), 20)

    async def close(self) -> None:
        """Let go of everything."""
        await self.process.release()
        await self.guest.close()
        await self.server.close(0)
        await self.serving


async def turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)
