"""Streams between a pipe and a connection: nothing lost, nothing hung, backpressure both ways."""

import asyncio
import contextlib
import hashlib
import os
import pty
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from api.frames import BROKEN, END, FrameReader
from vminitd.streams import FRAME, Input, Output, Taken

EIGHT_MIB = os.urandom(8 << 20)


class Host:
    """The host's end of a stdio connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.frames = FrameReader()
        self.data = bytearray()
        self.largest = 0

    async def read(self, least: int | None = None) -> bytes:
        """Takes all to the end, or at least so many bytes."""
        loop = asyncio.get_running_loop()
        while not self.frames.ended and (least is None or len(self.data) < least):
            received = await loop.sock_recv(self.connection, 1 << 20)
            if not received:
                break
            for piece in self.frames.feed(memoryview(received)):
                self.data += piece
                self.largest = max(self.largest, len(piece))
        return bytes(self.data)

    async def write(self, data: bytes, piece: int = 100_000) -> None:
        loop = asyncio.get_running_loop()
        for at in range(0, len(data), piece):
            part = data[at : at + piece]
            await loop.sock_sendall(self.connection, struct.pack(">I", len(part)) + part)

    async def closed(self) -> bytes:
        """What still comes until the guest closes; empty if nothing."""
        try:
            return await asyncio.get_running_loop().sock_recv(self.connection, 1)
        except ConnectionError:
            return b""


Connect = Callable[[], tuple[socket.socket, Host]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Makes (guest's end, Host). The host's are closed after the test."""
    hosts: list[socket.socket] = []

    def make() -> tuple[socket.socket, Host]:
        guest, host = socket.socketpair()
        guest.setblocking(False)
        host.setblocking(False)
        hosts.append(host)
        return guest, Host(host)

    yield make
    for host in hosts:
        host.close()


def pipe() -> tuple[int, int]:
    """(reading end, writing end), both non-blocking. Whoever gets an end closes it."""
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


async def write_and_close(descriptor: int, data: bytes) -> None:
    """As a process does that writes all it can and exits."""

    def write() -> None:
        os.set_blocking(descriptor, True)
        with contextlib.suppress(BrokenPipeError), open(descriptor, "wb", closefd=True) as file:
            file.write(data)

    await asyncio.to_thread(write)


async def test_eight_mib_and_exit(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Output(reading, guest).run())
    data, _ = await asyncio.gather(host.read(), write_and_close(writing, EIGHT_MIB))
    assert hashlib.sha256(data).digest() == hashlib.sha256(EIGHT_MIB).digest()
    assert host.frames.ended
    assert host.largest <= FRAME
    assert not relay.done()  # until the host, having all of it, closes
    host.connection.close()
    await relay


async def test_no_output_at_all_is_an_end(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    os.close(writing)
    relay = asyncio.create_task(Output(reading, guest).run())
    assert await host.read() == b""
    assert host.frames.ended
    host.connection.close()
    await relay


async def test_a_reader_that_does_not_read_stops_the_writer(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    output = Output(reading, guest)
    relay = asyncio.create_task(output.run())
    writer = asyncio.create_task(write_and_close(writing, EIGHT_MIB))
    await asyncio.wait([writer], timeout=0.3)
    assert not writer.done()
    assert output.moved < 1 << 20  # a socket's buffer, not eight MiB
    assert await host.read() == EIGHT_MIB
    host.connection.close()
    await asyncio.gather(relay, writer)


async def test_a_host_that_hangs_up_does_not_stop_the_process(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Output(reading, guest).run())
    writer = asyncio.create_task(write_and_close(writing, EIGHT_MIB))
    await host.read(least=10)
    host.connection.close()
    await asyncio.wait_for(asyncio.gather(writer, relay), 20)


async def test_without_a_connection_output_is_taken_and_dropped() -> None:
    reading, writing = pipe()
    output = Output(reading, None)
    await asyncio.gather(output.run(), write_and_close(writing, EIGHT_MIB))
    assert output.moved == len(EIGHT_MIB)


async def test_stop_takes_what_is_in_the_pipe_though_it_is_held_open(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    output = Output(reading, guest)
    written = os.write(writing, EIGHT_MIB)  # as much as the pipe holds
    relay = asyncio.create_task(output.run())
    output.stop()
    assert await host.read() == EIGHT_MIB[:written]
    assert host.frames.ended
    host.connection.close()
    await relay
    os.close(writing)


async def test_stop_ends_also_while_somebody_keeps_writing(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    output = Output(reading, guest)
    writer = asyncio.create_task(write_and_close(writing, EIGHT_MIB))
    relay = asyncio.create_task(output.run())
    await host.read(least=100_000)
    output.stop()
    data = await host.read()
    assert EIGHT_MIB.startswith(data)
    assert host.frames.ended
    host.connection.close()
    await asyncio.gather(relay, writer)


async def test_stop_wakes_a_relay_that_waits(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    output = Output(reading, guest)
    relay = asyncio.create_task(output.run())
    await asyncio.sleep(0)
    output.stop()
    assert await host.read() == b""
    host.connection.close()
    await relay
    output.stop()  # once more, after its end
    os.close(writing)


async def test_closing_a_cancelled_relay_closes_both_sides(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    output = Output(reading, guest)
    relay = asyncio.create_task(output.run())
    relay.cancel()  # before its first step
    await asyncio.wait([relay])
    output.close()
    output.close()
    assert await host.closed() == b""
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


async def test_eight_mib_of_input_and_its_end(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Input(writing, guest, pipe=True).run())

    def read_all() -> bytes:
        os.set_blocking(reading, True)
        with open(reading, "rb", closefd=True) as file:
            return file.read()

    reader = asyncio.create_task(asyncio.to_thread(read_all))
    await host.write(EIGHT_MIB)
    assert not reader.done()
    await asyncio.get_running_loop().sock_sendall(host.connection, END)
    assert await reader == EIGHT_MIB
    await relay
    assert await host.closed() == b""


async def test_a_process_that_does_not_read_stops_the_host(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Input(writing, guest, pipe=True).run())
    sending = asyncio.create_task(host.write(EIGHT_MIB))
    await asyncio.wait([sending], timeout=0.3)
    assert not sending.done()
    os.close(reading)  # and then it closes its input
    await relay
    with pytest.raises(ConnectionError):
        await sending


async def test_a_process_that_closes_its_input_while_none_comes(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Input(writing, guest, pipe=True).run())
    await host.write(b"hello")
    await asyncio.sleep(0)
    os.close(reading)
    await relay
    assert await host.closed() == b""


async def test_a_host_that_vanishes_ends_the_input(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Input(writing, guest, pipe=True).run())
    await host.write(b"half")
    host.connection.close()
    await relay
    assert os.read(reading, 100) == b"half"
    assert os.read(reading, 100) == b""
    os.close(reading)


async def test_a_terminal_s_output_ends_with_its_last_process(connect: Connect) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    guest, host = connect()
    relay = asyncio.create_task(Output(master, guest).run())
    await asyncio.to_thread(os.write, slave, b"line\n")
    os.close(slave)
    assert await host.read() == b"line\r\n"
    host.connection.close()
    await relay


async def test_a_terminal_s_input_does_not_close_it(connect: Connect) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    guest, host = connect()
    relay = asyncio.create_task(Input(os.dup(master), guest, pipe=False).run())
    await host.write(b"abc\n")
    assert await asyncio.to_thread(os.read, slave, 100) == b"abc\n"
    assert not relay.done()
    await asyncio.get_running_loop().sock_sendall(host.connection, END)
    await relay
    os.write(slave, b"still open")
    os.close(slave)
    os.close(master)


async def test_output_that_is_given_up_is_not_taken_for_all_there_is(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    os.write(writing, b"some")
    relay = asyncio.create_task(Output(reading, guest).run())
    await host.read(least=4)
    relay.cancel()
    await asyncio.wait([relay])
    assert await host.read() == b"some"
    assert host.frames.broken
    os.close(writing)


async def test_output_that_is_given_up_in_the_middle_of_a_frame_just_stops(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    relay = asyncio.create_task(Output(reading, guest).run())
    writer = asyncio.create_task(write_and_close(writing, EIGHT_MIB))
    await asyncio.wait([writer], timeout=0.2)
    relay.cancel()
    await asyncio.wait([relay, writer])
    assert EIGHT_MIB.startswith(await host.read())
    assert not host.frames.ended


async def test_output_says_whether_it_was_all(connect: Connect) -> None:
    for broken in (False, True):
        (reading, writing), (guest, host) = pipe(), connect()
        os.write(writing, b"all")
        os.close(writing)
        output = Output(reading, guest)
        if broken:
            output.break_off()
        relay = asyncio.create_task(output.run())
        assert await host.read() == b"all"
        assert host.frames.whole is not broken
        host.connection.close()
        assert await relay is not broken


async def test_output_that_is_needed_ends_when_nobody_listens(connect: Connect) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    host.connection.close()
    os.write(writing, b"to nobody")
    with pytest.raises(BrokenPipeError):
        await Output(reading, guest, needed=True).run()
    with pytest.raises(BrokenPipeError):
        os.write(writing, b"x")
    os.close(writing)


@pytest.mark.parametrize(("end", "taken"), [(END, Taken.WHOLE), (BROKEN, Taken.CUT), (b"", Taken.CUT)])
async def test_input_says_how_much_was_taken(connect: Connect, end: bytes, taken: Taken) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    await host.write(b"some")
    host.connection.sendall(end)
    host.connection.close()
    assert await Input(writing, guest, pipe=True).run() is taken
    assert os.read(reading, 100) == b"some"
    os.close(reading)


@pytest.mark.parametrize("is_pipe", [True, False])
async def test_input_that_nobody_wants_is_refused(connect: Connect, is_pipe: bool) -> None:
    (reading, writing), (guest, host) = pipe(), connect()
    os.close(reading)
    await host.write(b"some")
    assert await Input(writing, guest, pipe=is_pipe).run() is Taken.REFUSED
