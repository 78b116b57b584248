"""Streams between a guest's connection, here a socket pair, and real FIFOs: nothing is lost, hangs or stays open."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from shim.errors import HostError, UnsupportedError
from shim.task.fifo import OutputSink, open_input, open_output
from shim.task.frames import END, FrameReader, header
from shim.task.stdio import ProcessStreams, relay_input, relay_output
from tests.unit.shim.observe import same_fds

_Result = TypeVar("_Result")


async def soon(what: Awaitable[_Result]) -> _Result:
    """No test waits for ever."""
    return await asyncio.wait_for(what, 30)


class Guest:
    """The other end of a connection: writes and reads frames."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for sock in (self.ours, self.theirs):
            sock.setblocking(False)
        self._frames = FrameReader()

    async def send(self, data: bytes) -> None:
        await soon(asyncio.get_running_loop().sock_sendall(self.theirs, data))

    async def frame(self, data: bytes) -> None:
        await self.send(header(len(data)) + data)

    async def receive(self) -> bytes:
        """What comes until the end frame, or until the connection is closed."""
        got = bytearray()
        while not self._frames.ended:
            data = await soon(asyncio.get_running_loop().sock_recv(self.theirs, 65536))
            if not data:
                break
            for piece in self._frames.feed(memoryview(data)):
                got += piece
        return bytes(got)

    @property
    def ended(self) -> bool:
        return self._frames.ended

    async def closed(self) -> bool:
        """Wait for the shim to close its end."""
        try:
            return not await soon(asyncio.get_running_loop().sock_recv(self.theirs, 1))
        except ConnectionError:
            return True

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


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


def _read_end(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def _write_end(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


async def _read_all(fd: int, *, piece: int = 65536, limit: int = 1 << 62) -> bytes:
    """Read until the end of file, in pieces, as slowly as the loop goes round."""
    loop, got = asyncio.get_running_loop(), bytearray()
    while len(got) < limit:
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await soon(readable.wait())
        finally:
            loop.remove_reader(fd)
        data = os.read(fd, min(piece, limit - len(got)))
        if not data:
            break
        got += data
    return bytes(got)


async def test_8_mib_reach_a_slow_reader_whole(guest: Guest, fifo: Path) -> None:
    data = os.urandom(8 << 20)
    reader = _read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))

    async def write() -> None:
        for at in range(0, len(data), 100_000):
            await guest.frame(data[at : at + 100_000])
        await guest.send(END)

    writing = asyncio.create_task(write())
    got = await _read_all(reader, piece=3000)
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
    first = _read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    writing = asyncio.create_task(guest.send(header(len(data)) + data + END))
    got = await _read_all(first, limit=200_000)
    os.close(first)
    second = _read_end(fifo)
    got += await _read_all(second)
    assert got == data
    await soon(asyncio.gather(relay, writing))
    os.close(second)


async def test_the_reader_sees_the_end_only_after_the_end_frame(fifo: Path) -> None:
    with same_fds():
        guest, reader = Guest(), _read_end(fifo)
        relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
        await guest.frame(b"all")
        assert await _read_all(reader, limit=3) == b"all"
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        await guest.send(END + b"what follows is nobody's")
        assert await _read_all(reader) == b""
        await soon(relay)
        os.close(reader)
        guest.close()


@pytest.mark.parametrize("cut", [b"", b"\0", b"\0\0\0\5ab", END[:3]])
async def test_a_machine_that_is_gone_ends_the_stream(guest: Guest, fifo: Path, cut: bytes) -> None:
    reader = _read_end(fifo)
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    await guest.frame(b"before")
    await guest.send(cut)
    guest.theirs.close()
    assert await _read_all(reader) == b"before" + cut[4:]
    await soon(relay)
    os.close(reader)


async def test_a_reset_connection_ends_the_stream(guest: Guest, fifo: Path) -> None:
    """Closing a unix socket with unread data in it resets the other end (unix(7))."""
    relay = asyncio.create_task(relay_output(guest.ours, open_output(str(fifo))))
    guest.ours.send(b"never read")
    guest.theirs.close()
    await soon(relay)


async def test_output_that_cannot_be_written_is_an_error_and_closes_the_connection(guest: Guest, fifo: Path) -> None:
    reader = _read_end(fifo)
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
        writer = _write_end(fifo)
        os.write(writer, b"first ")
        os.close(writer)  # no end yet: the client may come back
        writer = _write_end(fifo)
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
    writer = _write_end(fifo)
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


async def test_a_guest_that_closes_early_ends_the_input(fifo: Path) -> None:
    """The process has closed its standard input: the FIFO's writer gets EPIPE, and nothing is left open."""
    with same_fds():
        guest = Guest()
        source = open_input(str(fifo))
        relay = asyncio.create_task(relay_input(guest.ours, source))
        writer = _write_end(fifo)
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


@pytest.fixture
def fifos(tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / name) for name in ("stdin", "stdout", "stderr")}
    for path in paths.values():
        os.mkfifo(path)
    return paths


async def test_a_process_has_the_streams_that_are_named(fifos: dict[str, str]) -> None:
    with same_fds():
        for terminal, left_out, expected in (
            (False, "", ("stdin", "stdout", "stderr")),
            (True, "", ("stdin", "stdout")),
            (False, "stdin", ("stdout", "stderr")),
            (False, "stderr", ("stdin", "stdout")),
        ):
            paths = {name: "" if name == left_out else path for name, path in fifos.items()}
            streams = ProcessStreams(terminal=terminal, **paths)
            assert streams.names == expected
            await streams.close()
            await streams.close()
        streams = ProcessStreams(terminal=False, stdin="", stdout="", stderr="")
        assert streams.names == ()
        assert await soon(streams.drained()) == []
        streams.finish_input()
        await streams.close()


@pytest.mark.parametrize(("bad", "error"), [("/nonexistent/x", HostError), ("binary:///x", UnsupportedError)])
def test_one_that_cannot_be_opened_leaves_none_open(fifos: dict[str, str], bad: str, error: type[Exception]) -> None:
    with same_fds():
        for name in fifos:
            with pytest.raises(error):
                ProcessStreams(terminal=False, **{**fifos, name: bad})


async def test_drained_waits_for_all_output(fifos: dict[str, str]) -> None:
    with same_fds():
        streams = ProcessStreams(terminal=False, **fifos)
        guests = {name: Guest() for name in fifos}
        readers = {name: _read_end(Path(fifos[name])) for name in ("stdout", "stderr")}
        for name, guest in guests.items():
            streams.connect(name, guest.ours)
        draining = asyncio.create_task(streams.drained())
        await guests["stdout"].send(header(3) + b"out" + END)
        assert await _read_all(readers["stdout"]) == b"out"
        await asyncio.sleep(0)
        assert not draining.done()
        await guests["stderr"].send(header(100_000) + bytes(100_000) + END)
        await asyncio.wait([draining], timeout=0.05)
        assert not draining.done()  # the reader has not taken what the FIFO cannot hold
        assert len(await _read_all(readers["stderr"])) == 100_000
        assert await soon(draining) == []
        streams.finish_input()
        assert await guests["stdin"].receive() == b""
        assert guests["stdin"].ended
        await soon(streams.close())
        for guest in guests.values():
            guest.close()
        for reader in readers.values():
            os.close(reader)


async def test_output_that_was_lost_is_told(fifos: dict[str, str], tmp_path: Path) -> None:
    streams = ProcessStreams(terminal=False, stdin="", stdout="/dev/full", stderr=fifos["stderr"])
    guests = {name: Guest() for name in streams.names}
    for name, guest in guests.items():
        streams.connect(name, guest.ours)
    for guest in guests.values():
        await guest.send(header(1) + b"x" + END)
    assert await soon(streams.drained()) == ["stdout: [Errno 28] No space left on device"]
    await streams.close()
    for guest in guests.values():
        guest.close()


async def test_closing_at_once_closes_connections_too(fifos: dict[str, str]) -> None:
    """A task that is cancelled before its first step cannot close anything itself."""
    with same_fds():
        streams = ProcessStreams(terminal=False, **fifos)
        guests = {name: Guest() for name in fifos}
        for name, guest in guests.items():
            streams.connect(name, guest.ours)
        await soon(streams.close())
        for guest in guests.values():
            assert await guest.closed()
            guest.close()
