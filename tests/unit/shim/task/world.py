"""A process of the shim whose guest is a stand-in for vminitd behind a real ttrpc connection."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

from google.protobuf.empty_pb2 import Empty

from api import guest_pb2
from api.guest_ttrpc import ContainersBase
from shim.guest import Guest
from shim.journal import Journal
from shim.log import Logger
from shim.relay import Streams
from shim.sandbox import Sandbox
from shim.task.hooks import Hooks
from shim.task.process import Exit, Process, StdioPaths
from shim.vm.states import Exit as MachineExit
from ttrpc import Client, Code, Context, Server, StatusError


async def network_as_it_is() -> None:
    """Before a start: nothing new about the network."""


def no_hooks(log: Logger) -> Hooks:
    """The hooks of a container that has none."""
    return Hooks(
        {}, container_id="c", bundle="/b", directory=Path("/nonexistent"), journal=Journal("/nonexistent"), log=log
    )


def ending(status: int, at_ns: int = 0, *, oom_kills: int = 0) -> guest_pb2.WaitResponse:
    """What vminitd says of a process that has ended: then, or just now."""
    response = guest_pb2.WaitResponse(exit_status=status, oom_kills=oom_kills)
    response.exited_at.FromNanoseconds(at_ns or time.time_ns())
    return response


class GuestExec:
    """A further process, as the stand-in has it."""

    def __init__(self, request: guest_pb2.ExecRequest) -> None:
        self.request = request
        self.ended: asyncio.Future[guest_pb2.WaitResponse] = asyncio.get_running_loop().create_future()
        # What was asked of it, in order.
        self.calls = ["exec"]
        # The guest's ends of its streams, by name, once it is started.
        self.streams: dict[str, socket.socket] = {}

    def end(self, status: int) -> None:
        """It has ended."""
        self.ended.set_result(ending(status))


class StandInSandbox(Sandbox):
    """A machine of which there is nothing but its streams: socket pairs, whose far ends `offered` has by token."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.offered: dict[bytes, socket.socket] = {}
        # Why there can be no more streams.
        self.full: Exception | None = None

    @contextlib.asynccontextmanager
    async def streams(self, streams: Streams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        """Sandbox.streams: at the end of the block what was named in it is carried."""
        ours: dict[str, socket.socket] = {}
        tokens: list[bytes] = []
        if self.full is not None:
            raise self.full
        try:
            for name in streams.names:
                ours[name], theirs = socket.socketpair()
                for sock in (ours[name], theirs):
                    sock.setblocking(False)
                tokens.append(secrets.token_bytes(16))
                self.offered[tokens[-1]] = theirs
                setattr(request, name, tokens[-1])
            yield
            assert not set(tokens).intersection(self.offered), "the guest has not called for every stream"
            for name in tuple(ours):
                streams.connect(name, ours.pop(name))
        finally:
            for sock in (*ours.values(), *(self.offered.pop(token) for token in tokens if token in self.offered)):
                sock.close()


class Vminitd(ContainersBase):
    """Does what it is told by the test."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[guest_pb2.WaitResponse] = asyncio.get_running_loop().create_future()
        self.starting = asyncio.Event()
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.start_error: StatusError | None = None
        self.delete_error: StatusError | None = None
        self.kills: list[tuple[int, bool]] = []
        # Whether the first process ends as it should.
        self.dies_of_sigkill = False
        self.kill_error: StatusError | None = None
        # Pause and Resume as they came, and what becomes of a Pause.
        self.pauses: list[str] = []
        self.may_pause = asyncio.Event()
        self.may_pause.set()
        self.pause_error: StatusError | None = None
        # How often Start was called, of whatever.
        self.starts = 0
        self.execs: dict[str, GuestExec] = {}
        # What Stats answers, how often it was asked, and whether it may answer.
        self.files: dict[str, bytes] = {}
        self.stats = 0
        self.may_tell = asyncio.Event()
        self.may_tell.set()
        # How many processes the kernel has killed, and how often the shim has asked for more.
        self.oom_kills = 0
        self.repeats_itself = False
        self.kill_told = asyncio.Event()
        self.asked_for_kills = 0
        # What Rewrite was given, in order; whether it may answer, and with what.
        self.rewrites: asyncio.Queue[guest_pb2.RewriteRequest] = asyncio.Queue()
        self.may_rewrite = asyncio.Event()
        self.may_rewrite.set()
        self.rewrite_error: StatusError | None = None
        # Whose streams execs call for.
        self.sandbox: StandInSandbox | None = None

    def end(self, status: int, at_ns: int = 0) -> None:
        """The first process has ended: then, or just now."""
        self.ended.set_result(ending(status, at_ns))

    def _exec(self, exec_id: str) -> GuestExec:
        if exec_id not in self.execs:
            raise StatusError(Code.NOT_FOUND, f"container 'c' has no process {exec_id!r}")
        return self.execs[exec_id]

    async def Exec(self, request: guest_pb2.ExecRequest, context: Context) -> Empty:
        if request.exec_id in self.execs:
            raise StatusError(Code.ALREADY_EXISTS, f"container 'c' already has a process {request.exec_id!r}")
        self.execs[request.exec_id] = GuestExec(request)
        return Empty()

    async def Start(self, request: guest_pb2.StartRequest, context: Context) -> guest_pb2.StartResponse:
        if request.exec_id:
            self._exec(request.exec_id).calls.append("start")
        self.starts += 1
        self.starting.set()
        await self.may_start.wait()
        if self.start_error is not None:
            raise self.start_error
        if request.exec_id:
            self._dial(self._exec(request.exec_id))
        return guest_pb2.StartResponse(pid=9)

    def _dial(self, process: GuestExec) -> None:
        assert self.sandbox is not None
        stdio = process.request.stdio
        for name, token in (("stdin", stdio.stdin), ("stdout", stdio.stdout), ("stderr", stdio.stderr)):
            if token:
                process.streams[name] = self.sandbox.offered.pop(token)

    async def Wait(self, request: guest_pb2.ProcessRequest, context: Context) -> guest_pb2.WaitResponse:
        return await asyncio.shield(self._exec(request.exec_id).ended if request.exec_id else self.ended)

    async def Kill(self, request: guest_pb2.KillRequest, context: Context) -> Empty:
        if request.exec_id:
            self._exec(request.exec_id).calls.append(f"kill {request.signal}{' all' if request.all else ''}")
        else:
            self.kills.append((request.signal, request.all))
        if self.kill_error is not None:
            raise self.kill_error
        if not request.exec_id and self.dies_of_sigkill and request.signal == 9 and not self.ended.done():
            self.end(137)
        return Empty()

    async def Pause(self, request: guest_pb2.ContainerRequest, context: Context) -> Empty:
        self.pauses.append("pause")
        await self.may_pause.wait()
        if self.pause_error is not None:
            raise self.pause_error
        return Empty()

    async def Resume(self, request: guest_pb2.ContainerRequest, context: Context) -> Empty:
        self.pauses.append("resume")
        if self.pause_error is not None:
            raise self.pause_error
        return Empty()

    async def ResizePty(self, request: guest_pb2.ResizePtyRequest, context: Context) -> Empty:
        self._exec(request.exec_id).calls.append(f"resize {request.width}x{request.height}")
        return Empty()

    async def Stats(self, request: guest_pb2.ContainerRequest, context: Context) -> guest_pb2.StatsResponse:
        self.stats += 1
        files = self.files
        await self.may_tell.wait()
        return guest_pb2.StatsResponse(files=files)

    async def OomKills(self, request: guest_pb2.OomKillsRequest, context: Context) -> guest_pb2.OomKillsResponse:
        self.asked_for_kills += 1
        while self.oom_kills <= request.known and not self.repeats_itself:
            self.kill_told.clear()
            await self.kill_told.wait()
        return guest_pb2.OomKillsResponse(kills=self.oom_kills)

    async def Rewrite(self, request: guest_pb2.RewriteRequest, context: Context) -> Empty:
        self.rewrites.put_nowait(request)
        await self.may_rewrite.wait()
        if self.rewrite_error is not None:
            raise self.rewrite_error
        return Empty()

    def oom(self, kills: int) -> None:
        """So many have been killed by now."""
        self.oom_kills = kills
        self.kill_told.set()

    async def Delete(self, request: guest_pb2.ProcessRequest, context: Context) -> Empty:
        process = self._exec(request.exec_id)
        process.calls.append("delete")
        if self.delete_error is not None:
            raise self.delete_error
        for sock in process.streams.values():
            sock.close()
        del self.execs[request.exec_id]
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
        self.sandbox = self.vminitd.sandbox = StandInSandbox(self.guest)
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
        for process in self.vminitd.execs.values():
            for sock in process.streams.values():
                sock.close()


async def turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)
