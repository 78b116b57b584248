"""The calls of one container's life on the shim's own socket, each timed: nothing of containerd is in them.

runc's shim takes the same calls for the same bundle, so both are measured alike. By call,
in milliseconds:

    start       the binary, until it has answered and ended
    Create      until answered
    Start       until answered
    first byte  from the call of Start until the container's first byte of output can be read
    exec        Exec and Start of `true`, until its Wait is answered
    Delete      of the container that was killed, until answered
"""

import asyncio
import json
import os
import time
from typing import Final

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from api import task_pb2
from tests.bench import turns
from tests.bench.bundle import Bundle, bundle
from tests.bench.place import Place
from tests.bench.results import Results
from tests.bench.shim import ShimBinary, Task, connect, started
from tests.bench.variants import Variant

CALLS: Final = ("start", "Create", "Start", "first byte", "exec", "Delete")
_ARGS: Final = ["sh", "-c", "echo; exec sleep 1000000"]
_EXEC: Final = {"args": ["true"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
_EXEC_TYPE: Final = "types.containerd.io/opencontainers/runtime-spec/1/Process"
_SIGKILL: Final = 9
_DEADLINE_S: Final = 120.0


def measure(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """The calls of `runs` lives of each variant, in turn."""
    by_name = {variant.name: variant for variant in variants}

    def run(name: str, _number: int) -> dict[str, float]:
        variant = by_name[name]
        with place.configured(variant), bundle(place, place.box(variant).new_id(), _ARGS) as made:
            return _life(place, variant, made)

    for name, found in turns.measure([*by_name], runs, "calls of a shim", run).items():
        results.calls_ms[name] = {call: [each[call] for each in found] for call in CALLS}


def _life(place: Place, variant: Variant, made: Bundle) -> dict[str, float]:
    with started(ShimBinary(place, variant, made)) as ran:
        took = asyncio.run(_talk(place, ran.stdout, made))
    return {"start": ran.took_ms, **took}


async def _talk(place: Place, answer: bytes, made: Bundle) -> dict[str, float]:
    """All calls from Create to Shutdown; how long each took."""
    asyncio.get_running_loop().add_reader(made.log, made.empty_log)
    task = await connect(place, answer, made.container_id)
    # runc's shim waits for a reader of each.
    stdout, stderr = (os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for path in (made.stdout, made.stderr))
    took: dict[str, float] = {}
    try:
        begin = time.perf_counter()
        await task.call("Create", made.create_request(), task_pb2.CreateTaskResponse)
        took["Create"] = _since(begin)
        begin = time.perf_counter()
        first_byte = asyncio.create_task(_first_byte(stdout, begin))
        await task.call("Start", task_pb2.StartRequest(id=made.container_id), task_pb2.StartResponse)
        took["Start"] = _since(begin)
        took["first byte"] = await first_byte
        took["exec"] = await _exec(task)
        await _end(task)
        begin = time.perf_counter()
        await task.call("Delete", task_pb2.DeleteRequest(id=made.container_id), task_pb2.DeleteResponse)
        took["Delete"] = _since(begin)
        await task.shutdown()
    finally:
        os.close(stdout)
        os.close(stderr)
        await task.close()
    return took


async def _first_byte(stdout: int, begin: float) -> float:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(stdout, readable.set)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            await readable.wait()
        return _since(begin)
    finally:
        loop.remove_reader(stdout)


async def _exec(task: Task) -> float:
    """Milliseconds of one exec of `true`; it is deleted after that."""
    spec = AnyMessage(type_url=_EXEC_TYPE, value=json.dumps(_EXEC).encode())
    container, name = task.container_id, "true"
    begin = time.perf_counter()
    await task.call("Exec", task_pb2.ExecProcessRequest(id=container, exec_id=name, spec=spec), Empty)
    await task.call("Start", task_pb2.StartRequest(id=container, exec_id=name), task_pb2.StartResponse)
    ended = await task.call("Wait", task_pb2.WaitRequest(id=container, exec_id=name), task_pb2.WaitResponse)
    took = _since(begin)
    assert ended.exit_status == 0, f"the exec ended with {ended.exit_status}"
    await task.call("Delete", task_pb2.DeleteRequest(id=container, exec_id=name), task_pb2.DeleteResponse)
    return took


async def _end(task: Task) -> None:
    kill = task_pb2.KillRequest(id=task.container_id, signal=_SIGKILL)
    await task.call("Kill", kill, Empty)
    await task.call("Wait", task_pb2.WaitRequest(id=task.container_id), task_pb2.WaitResponse)


def _since(begin: float) -> float:
    return round((time.perf_counter() - begin) * 1000, 2)
