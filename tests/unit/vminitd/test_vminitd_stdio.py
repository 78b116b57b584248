"""A process's streams as a whole: dialled, given to the child, carried, finished. With real children."""

import asyncio
import fcntl
import os
import pty

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from vminitd import deadlines
from vminitd.errors import RequestError, StateError
from vminitd.reaper import Reaper
from vminitd.spawn import spawn
from vminitd.stdio import Stdio, Wish

_TIOCVHANGUP = 0x5437  # linux/include/uapi/asm-generic/ioctls.h
IN, OUT, ERR = b"i" * 16, b"o" * 16, b"e" * 16


async def run(stdio: Stdio, reaper: Reaper, script: str) -> asyncio.Future[int]:
    """A shell with these streams; they are carried from here on."""
    assert stdio.child is not None
    stdin, stdout, stderr = stdio.child
    ended = reaper.expect(spawn(["/bin/sh", "-c", script], stdin=stdin, stdout=stdout, stderr=stderr))
    stdio.begin()
    return ended


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_three_streams(host: DialledHost, reaper: Reaper) -> None:
    stdio = await Stdio.open(Wish(False, IN, OUT, ERR), host.dial)
    ended = await run(stdio, reaper, "cat; echo oops >&2; exit 3")
    await host.write(IN, b"hello", end=True)
    assert await host.hung_up(IN)
    assert [*await asyncio.gather(host.read(OUT), host.read(ERR))] == [b"hello", b"oops\n"]
    assert await ended == 3
    await stdio.finish()


async def test_streams_that_are_not_wanted_are_dev_null(host: DialledHost, reaper: Reaper) -> None:
    stdio = await Stdio.open(Wish(False, b"", OUT, b""), host.dial)
    ended = await run(stdio, reaper, "cat; ls -l /proc/self/fd/0 /proc/self/fd/2 | grep -c /dev/null")
    assert await host.read(OUT) == b"2\n"
    await ended
    await stdio.finish()
    assert set(host.connections) == {OUT}


async def test_nothing_stays_open(host: DialledHost, reaper: Reaper) -> None:
    before = open_descriptors()
    stdio = await Stdio.open(Wish(False, IN, OUT, ERR), host.dial)
    ended = await run(stdio, reaper, "true")
    assert [*await asyncio.gather(host.read(OUT), host.read(ERR))] == [b"", b""]
    await ended
    await stdio.finish()
    stdio.close()
    host.connections[IN].close()
    assert open_descriptors() == before


async def test_a_failed_start_leaves_nothing(host: DialledHost) -> None:
    before = open_descriptors()
    stdio = await Stdio.open(Wish(False, IN, OUT, ERR), host.dial)
    stdio.close()
    assert all([await host.hung_up(token) for token in (IN, OUT, ERR)])
    for connection in host.connections.values():
        connection.close()
    assert open_descriptors() == before


async def test_a_host_that_refuses_one_stream_gets_none(host: DialledHost) -> None:
    host.refuse = ERR
    with pytest.raises(ConnectionRefusedError):
        await Stdio.open(Wish(False, IN, OUT, ERR), host.dial)
    assert await host.hung_up(IN)
    assert await host.hung_up(OUT)


async def test_a_child_that_holds_the_output_does_not_hold_the_end(
    host: DialledHost, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "HELD_OUTPUT", 0.1)
    stdio = await Stdio.open(Wish(False, b"", OUT, b""), host.dial)
    ended = await run(stdio, reaper, "sleep 1000 & echo $!")
    reading = asyncio.create_task(host.read(OUT))
    await ended
    await asyncio.wait_for(stdio.finish(), 10)
    os.kill(int(await reading), 9)


async def test_a_reader_that_never_reads_is_given_up(
    host: DialledHost, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "HELD_OUTPUT", 0.1)
    monkeypatch.setattr(deadlines, "DRAIN", 0.1)
    stdio = await Stdio.open(Wish(False, b"", OUT, b""), host.dial)
    # More than a connection's buffers hold, less than these and the pipe: the process ends, its output does not.
    ended = await run(stdio, reaper, "head -c 300000 /dev/zero")
    await ended
    await asyncio.wait_for(stdio.finish(), 10)
    with pytest.raises(ConnectionError, match="the stream has no end"):
        await host.read(OUT)


async def test_a_terminal_is_sized_before_it_exists(host: DialledHost) -> None:
    stdio = await Stdio.open(Wish(True, IN, OUT, b""), host.dial)
    assert stdio.child is None
    stdio.resize(34, 12)
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    stdio.begin(master)
    assert os.get_terminal_size(slave) == (34, 12)
    stdio.resize(100, 50)
    assert os.get_terminal_size(slave) == (100, 50)
    await host.write(IN, b"typed\n", end=False)
    assert await asyncio.to_thread(os.read, slave, 100) == b"typed\n"
    os.write(slave, b"seen\n")
    os.close(slave)
    reading = asyncio.create_task(host.read(OUT))
    await stdio.finish()
    assert await reading == b"typed\r\nseen\r\n"
    assert await host.hung_up(IN)


async def test_a_terminal_whose_output_nobody_wants(host: DialledHost) -> None:
    stdio = await Stdio.open(Wish(True, b"", b"", b""), host.dial)
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    stdio.begin(master)
    for _ in range(100):
        await asyncio.to_thread(os.write, slave, b"x" * 4000)
    os.close(slave)
    await asyncio.wait_for(stdio.finish(), 10)


async def test_a_terminal_goes_on_until_its_process_ends(host: DialledHost) -> None:
    """Whoever has it open may close it, or hang it up, and open it again, as a console's getty and login do."""
    stdio = await Stdio.open(Wish(True, IN, OUT, b""), host.dial)
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    os.set_blocking(master, False)
    stdio.begin(master)
    os.write(slave, b"first\n")
    os.close(slave)
    reading = asyncio.create_task(host.read(OUT))
    for _ in range(3):
        await asyncio.sleep(0.1)  # what is hung up loses what nobody has read
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(slave, _TIOCVHANGUP)
        os.close(slave)
        await host.write(IN, b"typed\n", end=False)
        slave = os.open(name, os.O_RDWR | os.O_NOCTTY)
        assert await asyncio.to_thread(os.read, slave, 100) == b"typed\n"
        os.write(slave, b"then\n")
        os.close(slave)
    await asyncio.sleep(0.1)
    assert not reading.done()
    await stdio.finish()
    assert await reading == b"first\r\n" + 3 * b"typed\r\nthen\r\n"
    assert await host.hung_up(IN)


async def test_a_terminal_s_other_end_is_not_kept(host: DialledHost) -> None:
    before = open_descriptors()
    stdio = await Stdio.open(Wish(True, b"", b"", b""), host.dial)
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    stdio.begin(master)
    stdio.close()
    os.close(slave)
    for _ in range(5):  # those that carried it are told, and then close what they had
        await asyncio.sleep(0)
    assert open_descriptors() == before


async def test_without_a_terminal_there_is_nothing_to_resize(host: DialledHost) -> None:
    stdio = await Stdio.open(Wish(False, b"", b"", b""), host.dial)
    with pytest.raises(StateError, match="has no terminal"):
        stdio.resize(1, 1)
    stdio.close()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(False, b"short", b"", b""), "the token of stdin has 5 bytes, not 16"),
        (Wish(True, b"", b"", ERR), "a terminal has no standard error"),
    ],
)
def test_wishes_that_make_no_sense(wish: Wish, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        wish.check()
