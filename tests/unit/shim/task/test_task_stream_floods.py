"""Streams of a hostile guest: nothing is kept that nobody reads, and whatever comes, the rest of the shim goes on."""

import asyncio
import contextlib
import os
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.task.stdio import ProcessStreams
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import Guest, read_end
from tests.unit.shim.task.rogue import memory_kib

_TINY = (b"\x00\x00\x00\x01x") * 50_000


@contextlib.asynccontextmanager
async def _carried(path: Path) -> AsyncIterator[tuple[ProcessStreams, Guest]]:
    """Output to `path`."""
    streams, guest = ProcessStreams(terminal=False, stdin="", stdout=f"file://{path}", stderr=""), Guest()
    try:
        streams.connect("stdout", guest.ours)
        yield streams, guest
    finally:
        await streams.close()
        guest.close()


async def _flood(guest: Guest, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while True:
            await loop.sock_sendall(guest.theirs, data)


async def test_frames_of_one_byte_leave_the_others_their_turn() -> None:
    """The guest is a process of its own, so that there is always more to read."""
    async with _carried(Path("/dev/null")) as (_, guest):
        os.set_blocking(guest.theirs.fileno(), True)
        program = f"import os\nwhile True: os.write(1, {_TINY[:5]!r} * 50_000)"
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=guest.theirs.fileno())
        try:
            slowest, until = 0.0, time.monotonic() + 2
            while (began := time.monotonic()) < until:
                await asyncio.sleep(0.001)
                slowest = max(slowest, time.monotonic() - began)
        finally:
            child.kill()
            await child.wait()
    assert slowest < 1


async def test_nothing_is_kept_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(fifo := tmp_path / "stdout")
    with same_fds():
        reader = read_end(fifo)
        async with _carried(fifo) as (_, guest):
            before_kib = memory_kib()
            flooding = asyncio.create_task(_flood(guest, struct.pack(">I", 1 << 20) + bytes(1 << 20)))
            await asyncio.sleep(0.5)
            assert not flooding.done()
            assert memory_kib() - before_kib < 8 << 10
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
        os.close(reader)


async def test_a_frame_of_four_gibibytes_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "out"
    async with _carried(path) as (streams, guest):
        before_kib = memory_kib()
        await guest.send(struct.pack(">I", 2**32 - 2))
        for _ in range(64):
            await guest.send(b"x" * (1 << 20))
        guest.theirs.close()  # in the middle of it
        assert await asyncio.wait_for(streams.drained(), 20) == []
        assert memory_kib() - before_kib < 16 << 10
    assert path.stat().st_size == 64 << 20


async def test_what_comes_after_the_end_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out"
    async with _carried(path) as (streams, guest):
        await guest.send(struct.pack(">I", 2) + b"ok" + struct.pack(">II", 0, 5) + b"more!" + b"\xff" * 1000)
        assert await asyncio.wait_for(streams.drained(), 20) == []
    assert path.read_bytes() == b"ok"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=300) | st.binary(max_size=50).map(lambda data: len(data).to_bytes(4, "big") + data)))
def test_whatever_a_stream_carries(pieces: list[bytes]) -> None:
    """It ends with its connection at the latest, without an error."""

    async def life() -> list[str]:
        async with _carried(Path("/dev/null")) as (streams, guest):
            with contextlib.suppress(OSError):
                for piece in pieces:
                    await guest.send(piece)
            guest.theirs.close()
            return await asyncio.wait_for(streams.drained(), 20)

    assert asyncio.run(life()) == []


async def test_bytes_on_an_input_connection_end_it_and_nothing_else(tmp_path: Path) -> None:
    """The guest has nothing to say there: it is taken for having closed it."""
    os.mkfifo(fifo := tmp_path / "stdin")
    with same_fds():
        streams, guest = ProcessStreams(terminal=False, stdin=str(fifo), stdout="", stderr=""), Guest()
        streams.connect("stdin", guest.ours)
        await guest.send(b"\xff" * 100)
        assert await guest.closed()
        await streams.close()
        guest.close()


@pytest.mark.parametrize("after", [0, 3])
async def test_a_connection_that_is_reset(tmp_path: Path, after: int) -> None:
    path = tmp_path / "out"
    async with _carried(path) as (streams, guest):
        await guest.send(b"\x00\x00\x00\x09abc"[: 4 + after])
        guest.theirs.close()
        assert await asyncio.wait_for(streams.drained(), 20) == []
    assert path.read_bytes() == b"abc"[:after]
