"""Put into a test's image as a module that vminitd's own service imports: a guest with a fault in it, on demand.

An exec whose id begins with `fault-` is the demand; all others are what they always are.
It imports nothing that vminitd does not.
"""

import asyncio
import os
import time

from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp

from api import guest_pb2
from ttrpc import Context
from ttrpc.frame import FrameType, encode
from ttrpc.wire import Wire
from vminitd.services.containers import ContainersService

_polite_exec, _polite_wait, _polite_stats = ContainersService.Exec, ContainersService.Wait, ContainersService.Stats
_make = Wire.__init__
_wires: list[Wire] = []
_demanded: set[str] = set()
_tasks: list[asyncio.Task[None]] = []


def _remember(self: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    _make(self, reader, writer)
    _wires.append(self)


async def _flood() -> None:
    """Answers to calls that were never made, as fast as the host takes them."""
    frames = encode(0xFFFF_FFF0, FrameType.RESPONSE, 0, b"never asked") * 1000
    while True:
        await _wires[0].room()
        _wires[0]._writer.write(frames)
        await asyncio.sleep(0)


def _kill_crun() -> bool:
    """Whether there is one, which dies."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                name = file.read().strip()
            if name == "crun":
                os.kill(int(pid), 9)
                return True
        except OSError:  # it ended while we looked
            continue
    return False


async def _kill_next_crun() -> None:
    while not _kill_crun():  # noqa: ASYNC110 - nobody tells us of it
        await asyncio.sleep(0)


def _stand_still() -> None:
    time.sleep(1000)


async def _exec(self: ContainersService, request: guest_pb2.ExecRequest, context: Context) -> Empty:
    _demanded.add(request.exec_id)
    match request.exec_id:
        case "fault-exit":
            os._exit(1)
        case "fault-silence":
            _stand_still()
        case "fault-garbage":
            _wires[0]._writer.write(b"\xff" * (1 << 20))
            await asyncio.sleep(1000)
        case "fault-flood":
            _tasks.append(asyncio.create_task(_flood()))
        case "fault-crun":
            _tasks.append(asyncio.create_task(_kill_next_crun()))
    return await _polite_exec(self, request, context)


async def _wait(self: ContainersService, request: guest_pb2.ProcessRequest, context: Context) -> guest_pb2.WaitResponse:
    if request.exec_id == "fault-lies":
        await _polite_wait(self, request, context)
        at = Timestamp(seconds=2**62, nanos=-1)
        return guest_pb2.WaitResponse(exit_status=512, exited_at=at, oom_kills=2**64 - 1)
    return await _polite_wait(self, request, context)


async def _stats(
    self: ContainersService, request: guest_pb2.ContainerRequest, context: Context
) -> guest_pb2.StatsResponse:
    if "fault-lies" in _demanded:
        return guest_pb2.StatsResponse(files={f"../../{number}": b"x" * 1000 for number in range(3000)})
    return await _polite_stats(self, request, context)


setattr(Wire, "__init__", _remember)  # noqa: B010
for _name, _rogue in (("Exec", _exec), ("Wait", _wait), ("Stats", _stats)):
    setattr(ContainersService, _name, _rogue)
