"""A guest that answers what it likes, in raw frames, behind the shim's own client."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import guest_pb2
from shim.guest import Guest, connect
from shim.log import Logger
from shim.task.process import Exit, Process, StdioPaths
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.task.world import StandInSandbox, World
from ttrpc.frame import Decoder, Frame, FrameType
from ttrpc.messages import decode_request, encode_reply

HEADER = struct.Struct(">IIBB")

# What a polite guest's answers are; Wait has its own.
POLITE: dict[str, Message] = {
    "Start": guest_pb2.StartResponse(pid=9),
    "Stats": guest_pb2.StatsResponse(files={"pids.current": b"1\n"}),
}

# From a method and its stream to the bytes that are sent, or None to hang up after those.
Answer = Callable[[str, int], Sequence[bytes | None]]


def response(stream: int, message: Message) -> bytes:
    """An ordinary answer."""
    return raw(stream, FrameType.RESPONSE, encode_reply(message.SerializeToString()))


def raw(stream: int, frame_type: int, data: bytes, *, length: int = -1) -> bytes:
    """A frame; it may say another length than it has, or a type or length that cannot be."""
    return HEADER.pack(len(data) if length < 0 else length, stream, frame_type, 0) + data


def polite(method: str, stream: int) -> Sequence[bytes | None]:
    """What vminitd would say; of Wait, nothing yet."""
    return [] if method == "Wait" else [response(stream, POLITE.get(method, Empty()))]


class RogueSandbox(StandInSandbox):
    """Its machine ends when it is killed."""

    def __init__(self, guest: Guest, died: "asyncio.Future[MachineExit]") -> None:
        super().__init__(guest)
        self._died = died
        self.killed: list[str] = []

    async def kill(self, reason: str) -> None:
        """As Sandbox.kill."""
        self.killed.append(reason)
        if not self._died.done():
            self._died.set_result(MachineExit(Cause.KILLED, -9))


class RogueWorld(World):
    """A process whose guest answers by `answer`. `vminitd` has no part in it."""

    def __init__(self, log: Logger, answer: Answer) -> None:
        ours, self._theirs = socket.socketpair()
        for sock in (ours, self._theirs):
            sock.setblocking(False)
        self.answer = answer
        self.asked: list[tuple[str, int]] = []
        self.died = asyncio.get_running_loop().create_future()
        self.guest = Guest(connect(ours), self.died)
        self.rogue = RogueSandbox(self.guest, self.died)
        self.sandbox = self.rogue
        paths = StdioPaths(terminal=True, stdin="", stdout="", stderr="")
        self.process = Process(container_id="c", exec_id="", pid=5, paths=paths, guest=self.guest, log=log)
        self.exits: list[Exit] = []
        self._answering = asyncio.create_task(self._answer_all())

    async def say(self, data: bytes) -> None:
        """Send what nobody has asked for."""
        with contextlib.suppress(OSError):  # the shim has hung up
            await asyncio.get_running_loop().sock_sendall(self._theirs, data)

    async def _answer_all(self) -> None:
        decoder = Decoder()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._theirs, 65536):
                decoder.feed(data)
                while (item := decoder.next()) is not None:
                    assert isinstance(item, Frame)
                    if item.type == FrameType.REQUEST:
                        await self._answer(item)

    async def _answer(self, frame: Frame) -> None:
        method = decode_request(frame.data).method
        self.asked.append((method, frame.stream_id))
        for data in self.answer(method, frame.stream_id):
            if data is None:
                self._theirs.shutdown(socket.SHUT_RDWR)
                return
            await self.say(data)

    async def close(self) -> None:
        """As World.close."""
        await self.process.release()
        await self.guest.close()
        self._answering.cancel()
        await asyncio.gather(self._answering, return_exceptions=True)
        self._theirs.close()


def memory_kib() -> int:
    """What this process has in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
