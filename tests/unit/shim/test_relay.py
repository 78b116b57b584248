"""Streams between a guest's connection, here a socket pair, and real FIFOs: nothing is lost, hangs or stays open."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.frames import BROKEN, END, header
from shim.relay import relay_input, relay_output
from shim.task.fifo import OutputSink, open_input, open_output
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.ends import Guest, read_all, read_end, soon, write_end


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    guest = Guest()
    yield guest
    guest.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "stream"
    os.mkfifo(path)
    return path


async def test_8_mib_reach_a_slow_reader_whole(guest: Guest, fifo: Path) -> None:
    data = os.urandom(8 << 20)
    reader = read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))

    async def write() -> None:
        for at in range(0, len(data), 100_000):
            await guest.frame(data[at : at + 100_000])
        await guest.send(END)

    writing = asyncio.create_task(write())
    got = await read_all(reader, piece=3000)
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    await soon(writing)
    await soon(relay)
    assert await guest.closed()
    os.close(reader)


async def test_a_reader_that_stops_stops_the_guest(guest: Guest, fifo: Path) -> None:
    """Nothing is buffered beyond the pipe, one piece and the sockets."""
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    sent = 0

    async def write() -> None:
        nonlocal sent
        while True:
            await asyncio.get_running_loop().sock_sendall(guest.theirs, header(4096) + bytes(4096))
            sent += 4096

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(write(), 0.5)
    assert 65536 <= sent < 4 << 20
    assert not relay.done()
    relay.cancel()
    await asyncio.wait([relay])


async def test_a_reader_goes_in_the_middle_and_another_comes(guest: Guest, fifo: Path) -> None:
    data = os.urandom(1 << 20)
    first = read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    writing = asyncio.create_task(guest.send(header(len(data)) + data + END))
    got = await read_all(first, limit=200_000)
    os.close(first)
    second = read_end(fifo)
    got += await read_all(second)
    assert got == data
    await soon(asyncio.gather(relay, writing))
    os.close(second)


async def test_the_reader_sees_the_end_only_after_the_end_frame(fifo: Path) -> None:
    with same_fds():
        guest, reader = Guest(), read_end(fifo)
        relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
        await guest.frame(b"all")
        assert await read_all(reader, limit=3) == b"all"
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        await guest.send(END + b"what follows is nobody's")
        assert await read_all(reader) == b""
        await soon(relay)
        os.close(reader)
        guest.close()


@pytest.mark.parametrize("cut", [b"", b"\0", b"\0\0\0\5ab", END[:3]])
async def test_a_machine_that_is_gone_ends_the_stream(guest: Guest, fifo: Path, cut: bytes) -> None:
    reader = read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    await guest.frame(b"before")
    await guest.send(cut)
    guest.theirs.close()
    assert await read_all(reader) == b"before" + cut[4:]
    await soon(relay)
    os.close(reader)


async def test_a_reset_connection_ends_the_stream(guest: Guest, fifo: Path) -> None:
    """Closing a unix socket with unread data in it resets the other end (unix(7))."""
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    guest.ours.send(b"never read")
    guest.theirs.close()
    await soon(relay)


async def test_output_that_cannot_be_written_is_an_error_and_closes_the_connection(guest: Guest, fifo: Path) -> None:
    reader = read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, OutputSink(os.dup(reader), -1)))  # not open for writing
    await guest.frame(b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        await soon(relay)
    assert await guest.closed()
    os.close(reader)


async def test_cancelled_output_leaves_nothing_open(fifo: Path) -> None:
    with same_fds():
        guest = Guest()
        relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
        await guest.frame(bytes(200_000))
        await asyncio.sleep(0)
        relay.cancel()
        await asyncio.wait([relay])
        assert await guest.closed()
        guest.close()


async def test_input_reaches_the_guest_and_ends_with_close_io(fifo: Path) -> None:
    with same_fds():
        guest, source = Guest(), open_input(str(fifo))
        relay = asyncio.create_task(relay_input(guest.ours, source))
        writer = write_end(fifo)
        os.write(writer, b"first ")
        os.close(writer)  # no end yet: the client may come back
        writer = write_end(fifo)
        os.write(writer, b"second")
        receiving = asyncio.create_task(guest.receive())
        while not receiving.done():
            source.finish()
            await asyncio.sleep(0)
        assert (await receiving, guest.ended) == (b"first second", True)
        assert not relay.done()  # the receiver of the end closes
        guest.theirs.close()
        await soon(relay)
        os.close(writer)


async def test_close_io_with_data_still_in_the_fifo(guest: Guest, fifo: Path) -> None:
    source = open_input(str(fifo))
    writer = write_end(fifo)
    data = os.urandom(65536)
    assert os.write(writer, data) == len(data)
    os.close(writer)
    source.finish()
    relay = asyncio.create_task(relay_input(guest.ours, source))
    assert await guest.receive() == data
    assert guest.ended
    guest.theirs.close()
    await soon(relay)


async def test_20_mib_through_standard_input(guest: Guest, fifo: Path) -> None:
    data = os.urandom(20 << 20)
    source = open_input(str(fifo))
    relay = asyncio.create_task(relay_input(guest.ours, source))
    sink = open_output(str(fifo))

    async def write() -> None:
        await sink.write(memoryview(data))
        source.finish()
        sink.close()

    writing = asyncio.create_task(write())
    got = await guest.receive()
    assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
    await soon(writing)
    guest.theirs.close()
    await soon(relay)


class _Trickle:
    """A source that has a byte whenever it is asked, so many times."""

    def __init__(self, count: int) -> None:
        self.left = count

    async def read(self, limit: int) -> bytes:
        self.left -= 1
        return b"x" if self.left >= 0 else b""

    def close(self) -> None:
        """Nothing to close."""


async def test_input_that_is_always_there_leaves_the_others_their_turn(guest: Guest) -> None:
    """As that of a client who writes byte by byte, faster than it is passed on, to a guest that takes it at once."""
    source = _Trickle(count := 100)
    relay = asyncio.create_task(relay_input(guest.ours, source))
    turns = 0
    while source.left >= 0:
        await asyncio.sleep(0)
        turns += 1
    assert turns >= count
    assert await guest.receive() == b"x" * count
    guest.theirs.close()
    assert await soon(relay)


async def test_a_guest_that_closes_early_ends_the_input(fifo: Path) -> None:
    """The process has closed its standard input: the FIFO's writer gets EPIPE, and nothing is left open."""
    with same_fds():
        guest = Guest()
        source = open_input(str(fifo))
        relay = asyncio.create_task(relay_input(guest.ours, source))
        writer = write_end(fifo)
        os.write(writer, b"x")
        guest.theirs.close()
        await soon(relay)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"y")
        os.close(writer)
        source.finish()


async def test_a_guest_that_closes_while_it_takes_nothing(fifo: Path) -> None:
    with same_fds():
        guest = Guest()
        source = open_input(str(fifo))
        relay = asyncio.create_task(relay_input(guest.ours, source))
        sink = open_output(str(fifo))
        writing = asyncio.create_task(sink.write(memoryview(bytes(8 << 20))))
        await asyncio.wait([writing], timeout=0.2)  # until both pipe and socket are full
        assert not writing.done()
        assert not relay.done()
        guest.theirs.close()
        await soon(relay)
        writing.cancel()
        await asyncio.wait([writing])
        sink.close()


async def test_a_source_that_cannot_be_read_ends_the_input(guest: Guest, tmp_path: Path) -> None:
    source = open_input(str(tmp_path))  # opening a directory works, reading does not
    with pytest.raises(IsADirectoryError):
        await soon(relay_input(guest.ours, source))
    assert await guest.receive() == b""
    assert guest.broken
    assert await guest.closed()


async def test_cancelled_input_leaves_nothing_open(fifo: Path) -> None:
    with same_fds():
        guest = Guest()
        relay = asyncio.create_task(relay_input(guest.ours, open_input(str(fifo))))
        await asyncio.sleep(0)
        relay.cancel()
        await asyncio.wait([relay])
        assert await guest.closed()
        guest.close()


@pytest.mark.parametrize(("end", "whole"), [(END, True), (BROKEN, False), (b"", False)])
async def test_the_answer_says_whether_output_came_whole(guest: Guest, fifo: Path, end: bytes, whole: bool) -> None:
    reader = read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    await guest.frame(b"all")
    await guest.send(end)
    guest.theirs.close()
    assert await read_all(reader) == b"all"
    assert await soon(relay) == whole
    os.close(reader)


@pytest.mark.parametrize("whole", [True, False])
async def test_the_answer_says_whether_input_was_taken_whole(guest: Guest, fifo: Path, whole: bool) -> None:
    source = open_input(str(fifo))
    if whole:
        source.finish()
    relay = asyncio.create_task(relay_input(guest.ours, source))
    if whole:
        await guest.receive()
    guest.theirs.close()
    assert await soon(relay) == whole
