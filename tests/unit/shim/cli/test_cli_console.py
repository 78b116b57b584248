"""`qemubox console` on a real terminal: both ways, until ^], and the terminal is as it was."""

import asyncio
import contextlib
import os
import pty
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shim.vm.console import Console
from shim.vm.offered import CLIENTS_MOST
from tests.unit.shim.cli.conftest import Command
from tests.unit.shim.cli.machines import Machine

_ROOT = Path(__file__).parents[4]
_DEADLINE_S = 30.0


class Guest:
    """The machine's end of its serial line."""

    def __init__(self, machine: Machine) -> None:
        self.console = Console(machine.console, limit_kib=16)
        self.console.offer(machine.directory / "console.sock")
        self.line = self.console.child.dup()
        self.line.setblocking(False)
        self.console.release_child()

    async def print(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.line, data)

    async def typed(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(_DEADLINE_S):
            while len(data) < size:
                data += await asyncio.get_running_loop().sock_recv(self.line, size - len(data))
        return data

    def end(self) -> None:
        self.line.close()
        self.console.close()


@pytest.fixture
async def guest(machine: Machine) -> AsyncIterator[Guest]:
    made = Guest(machine)
    yield made
    made.end()


class Screen:
    """A terminal that the command runs on."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        os.set_blocking(self.ours, False)
        self._text = b""

    async def until(self, words: str) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_DEADLINE_S):
            while words.encode() not in self._text:
                came = asyncio.Event()
                loop.add_reader(self.ours, came.set)
                try:
                    await came.wait()
                finally:
                    loop.remove_reader(self.ours)
                with contextlib.suppress(BlockingIOError):
                    self._text += os.read(self.ours, 65536)

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    async def run(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shim.cli", "console", "box"),
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            cwd=_ROOT,
        )


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    os.close(made.ours)
    os.close(made.theirs)


async def test_both_ways_until_the_key(guest: Guest, screen: Screen) -> None:
    before = termios.tcgetattr(screen.theirs)
    process = await screen.run()
    await screen.until("^] leaves")
    await guest.print(b"who is there? ")
    await screen.until("who is there? ")
    screen.type(b"me\r\x03\x1a")  # what would end or stop a command on a terminal goes to the guest
    assert await guest.typed(5) == b"me\r\x03\x1a"
    screen.type(b"x\x1dy")
    assert await guest.typed(1) == b"x"
    await screen.until("left")
    async with asyncio.timeout(_DEADLINE_S):
        assert await process.wait() == 0
    assert termios.tcgetattr(screen.theirs) == before


async def test_until_the_machine_ends(guest: Guest, screen: Screen) -> None:
    before = termios.tcgetattr(screen.theirs)
    process = await screen.run()
    await screen.until("^] leaves")
    await guest.print(b"last words")
    await screen.until("last words")
    guest.end()
    await screen.until("the machine has ended")
    async with asyncio.timeout(_DEADLINE_S):
        assert await process.wait() == 0
    assert termios.tcgetattr(screen.theirs) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_a_signal_from_elsewhere_leaves_the_terminal_as_it_was(
    guest: Guest, screen: Screen, number: signal.Signals
) -> None:
    """As timeout(1) sends it: a raw terminal would be of no use to whoever sits there."""
    before = termios.tcgetattr(screen.theirs)
    process = await screen.run()
    await guest.print(b"here ")
    await screen.until("here ")
    assert termios.tcgetattr(screen.theirs) != before
    process.send_signal(number)
    async with asyncio.timeout(_DEADLINE_S):
        assert await process.wait() == (130 if number == signal.SIGINT else -number)
    assert termios.tcgetattr(screen.theirs) == before


async def test_the_second_only_looks_on(guest: Guest, screen: Screen) -> None:
    first = await screen.run()
    await screen.until("^] leaves")
    command = (sys.executable, "-m", "shim.cli", "console", "box")
    pipe = asyncio.subprocess.PIPE
    second = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, cwd=_ROOT)
    assert second.stdin is not None
    assert second.stdout is not None
    assert second.stderr is not None
    async with asyncio.timeout(_DEADLINE_S):
        while b"somebody else has the keyboard" not in await second.stderr.readline():
            pass
        second.stdin.write(b"dropped")
        second.stdin.close()  # the end of what is no terminal ends nothing
        screen.type(b"typed")
        assert await guest.typed(5) == b"typed"
        await guest.print(b"for both")
        assert await second.stdout.readexactly(8) == b"for both"
        await screen.until("for both")
        screen.type(b"\x1d")
        assert await first.wait() == 0
        guest.end()
        await second.communicate()


async def test_a_shim_that_says_nothing(machine: Machine, qemubox: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shim.deadlines.DIAL_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(machine.directory / "console.sock"))
        silent.listen()
        assert await qemubox("console", "box") == 1
    assert "the shim does not answer within 0.2 s" in qemubox.err


async def test_one_more_than_there_may_be(guest: Guest, qemubox: Command, machine: Machine) -> None:
    clients = [socket.socket(socket.AF_UNIX) for _ in range(CLIENTS_MOST)]
    for client in clients:
        client.connect(str(machine.directory / "console.sock"))
    assert await qemubox("console", "box") == 1
    assert "the console takes nobody more" in qemubox.err
    for client in clients:
        client.close()


async def test_without_a_machine_or_its_socket(machine: Machine, qemubox: Command) -> None:
    assert await qemubox("console", "box") == 1
    assert "the machine offers no console (any more)" in qemubox.err
    assert await qemubox("console", "none") == 1
    assert "container none has no machine" in qemubox.err
