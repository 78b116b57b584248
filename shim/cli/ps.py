"""`qemubox ps`: every machine that there is, with the state that its shim tells.

A shim that does not answer within a second is shown with "no answer": ps is for the moments when something hangs.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from api import task_pb2, task_types_pb2
from api.task_ttrpc import TaskStub
from shim import deadlines, inspection
from shim.cli.processes import usage
from shim.config import load
from shim.copy.address import Shim, shims
from shim.copy.connection import connection
from shim.errors import HostError, QemuboxError
from ttrpc import Code, StatusError

NO_ANSWER: Final = "no answer"
NO_TASK: Final = "no task"
_AT_ONCE: Final = 32
_MIB: Final = 1 << 20
_HEADS: Final = ("NAMESPACE", "ID", "QEMU", "STATE", "ACCEL", "START", "VCPUS", "MEMORY", "CPU", "RSS", "AGE")


@dataclass(frozen=True, slots=True)
class Line:
    """One machine. What is not known yet, before the container's start, or any more, is None.

    `state` is the task's of containerd's API in small letters, "no task" before Create has ended and after Delete, or
    "no answer". `start` is "clone" or "booted". Times are in seconds, `rss` is QEMU's in bytes.
    """

    namespace: str
    id: str
    state: str
    task_pid: int | None
    shim_pid: int | None = None
    qemu_pid: int | None = None
    accelerator: str | None = None
    start: str | None = None
    vcpus: int | None = None
    memory_mib: int | None = None
    cpu_s: float | None = None
    rss: int | None = None
    age_s: float | None = None


def run(arguments: argparse.Namespace) -> int:
    """Print them, or their ids alone."""
    found = shims(Path(load().runtime.state_dir))
    found = [each for each in found if arguments.namespace in ("", each.address.namespace)]
    if arguments.quiet:
        print("".join(f"{each.address.id}\n" for each in found), end="")
        return 0
    lines = asyncio.run(look(found))
    if arguments.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))
    else:
        print("\n".join(table(lines)))
    return 0


async def look(found: Sequence[Shim]) -> list[Line]:
    """Each as it is now; all are asked at once, some dozens at a time."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(shim: Shim) -> Line:
        async with turns:
            return line(shim, *await ask(shim))

    return await asyncio.gather(*(one(shim) for shim in found))


async def ask(shim: Shim) -> tuple[str, int | None]:
    """The task's state and its pid, as the shim says; one that says nothing is "no answer"."""
    request = task_pb2.StateRequest(id=shim.address.id)
    try:
        async with connection(shim.address.socket, deadline_s=deadlines.LOOK_S) as client:
            answer = await TaskStub(client).State(request, timeout_s=deadlines.LOOK_S)
    except StatusError as error:
        return (NO_TASK if error.code is Code.NOT_FOUND else NO_ANSWER), None
    except (QemuboxError, OSError):
        return NO_ANSWER, None
    return task_types_pb2.Status.Name(answer.status).lower(), answer.pid


def line(shim: Shim, state: str, task_pid: int | None) -> Line:
    """What is known of one machine; that a file of it cannot be read is said, and the others are shown."""
    try:
        known = inspection.read(shim.directory)
    except HostError as error:
        print(f"qemubox: {error}", file=sys.stderr)
        known = None
    if known is None:
        return Line(shim.address.namespace, shim.address.id, state, task_pid)
    used = usage(known.qemu_pid, shim.directory.name)
    return Line(
        namespace=known.namespace,
        id=known.id,
        state=state,
        task_pid=task_pid,
        shim_pid=known.shim_pid,
        qemu_pid=known.qemu_pid,
        accelerator=known.accelerator,
        start="clone" if known.template else "booted",
        vcpus=known.vcpus,
        memory_mib=known.base_memory_mib + known.memory_mib,
        cpu_s=round(used.cpu_s, 2) if used else None,
        rss=used.rss if used else None,
        age_s=round(used.age_s, 1) if used else None,
    )


def table(lines: Iterable[Line]) -> list[str]:
    """As people read it: columns as wide as need be, a "-" for what is not known."""
    rows = [_HEADS]
    for each in lines:
        rows.append(
            (
                each.namespace,
                each.id,
                _text(each.qemu_pid),
                each.state,
                _text(each.accelerator),
                _text(each.start),
                _text(each.vcpus),
                "-" if each.memory_mib is None else f"{each.memory_mib} MiB",
                "-" if each.cpu_s is None else f"{each.cpu_s:.1f} s",
                "-" if each.rss is None else f"{each.rss / _MIB:.0f} MiB",
                "-" if each.age_s is None else ago(each.age_s),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def ago(seconds: float) -> str:
    """`45s`, `12m05s`, `3h02m`, `5d07h`."""
    whole = int(seconds)
    for unit, size, lesser, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{lesser}"
    return f"{whole}s"


def _text(value: object) -> str:
    return "-" if value is None else str(value)
