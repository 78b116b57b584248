"""100 MB through a container's standard output: from the call of Start until the last byte has been read.

On the shim's own socket, as calls.py: what is between the container and the reader is the shim, and with qemubox the
machine. The reader is this program, and the same for all.
"""

import asyncio
import os
import time
from typing import Final

from api import task_pb2
from tests.bench import turns
from tests.bench.bundle import Bundle, bundle
from tests.bench.place import Place
from tests.bench.results import Results
from tests.bench.shim import ShimBinary, connect, started
from tests.bench.variants import Variant

BYTES: Final = 100_000_000
_ARGS: Final = ["dd", "if=/dev/zero", "bs=100000", f"count={BYTES // 100_000}"]
_PIECE: Final = 1 << 16
_DEADLINE_S: Final = 300.0
_MB: Final = 1e6


def measure(place: Place, variants: list[Variant], runs: int, results: Results) -> None:
    """Megabytes a second of `runs` containers of each variant, in turn. A cold boot's machine is the same."""
    chosen = {variant.name: variant for variant in variants if variant.start != "cold"}

    def run(name: str, _number: int) -> float:
        variant = chosen[name]
        with (
            place.configured(variant),
            bundle(place, place.box(variant).new_id(), _ARGS) as made,
            started(ShimBinary(place, variant, made)) as ran,
        ):
            return asyncio.run(_life(place, ran.stdout, made))

    results.output_mb_s = turns.measure([*chosen], runs, "100 MB of output", run)


async def _life(place: Place, answer: bytes, made: Bundle) -> float:
    asyncio.get_running_loop().add_reader(made.log, made.empty_log)
    task = await connect(place, answer, made.container_id)
    stdout, stderr = (os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) for path in (made.stdout, made.stderr))
    container = made.container_id
    try:
        await task.call("Create", made.create_request(), task_pb2.CreateTaskResponse)
        begin = time.perf_counter()
        reading = asyncio.create_task(_read(stdout))
        await task.call("Start", task_pb2.StartRequest(id=container), task_pb2.StartResponse)
        await reading
        took_s = time.perf_counter() - begin
        ended = await task.call("Wait", task_pb2.WaitRequest(id=container), task_pb2.WaitResponse)
        assert ended.exit_status == 0, f"dd ended with {ended.exit_status}"
        await task.call("Delete", task_pb2.DeleteRequest(id=container), task_pb2.DeleteResponse)
        await task.shutdown()
    finally:
        os.close(stdout)
        os.close(stderr)
        await task.close()
    return round(BYTES / _MB / took_s, 2)


async def _read(stdout: int) -> None:
    """Return when all of it has come."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    left = BYTES
    loop.add_reader(stdout, readable.set)
    try:
        async with asyncio.timeout(_DEADLINE_S):
            while left:
                await readable.wait()
                readable.clear()
                left -= len(_piece(stdout))
    finally:
        loop.remove_reader(stdout)


def _piece(stdout: int) -> bytes:
    try:
        return os.read(stdout, _PIECE)
    except BlockingIOError:
        return b""
