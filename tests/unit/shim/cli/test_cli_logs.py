"""`qemubox logs`: the console's files to their end, through rotations, until the machine has ended."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shim.cli.logs import Console, Harmless
from tests.unit.shim.cli.conftest import Command
from tests.unit.shim.cli.machines import Machine
from tests.unit.shim.observe import DEADLINE_S

_ROOT = Path(__file__).parents[4]


def _started(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "shim.cli", "logs", *words], stdout=subprocess.PIPE, cwd=_ROOT)


def _rotate(console: Path) -> None:
    console.rename(console.with_name("console.1"))
    console.write_text("")


async def test_without_words_it_says_what_there_is(qemubox: Command, machine: Machine) -> None:
    machine.console.write_bytes(bytes(3000))
    assert await qemubox("logs", "box") == 0
    assert "console, 3 KiB: qemubox logs --console --namespace ns box" in qemubox.out
    assert await qemubox("logs", "none") == 1
    assert "container none has no machine (see qemubox ps)" in qemubox.err


def test_both_files_byte_for_byte(machine: Machine) -> None:
    (machine.directory / "console.1").write_bytes(b"\x1b[31mbefore\n")
    machine.console.write_bytes(b"after\r\n\xff")
    with _started("--console", "name-of-box") as process:
        assert process.communicate(timeout=DEADLINE_S)[0] == b"\x1b[31mbefore\nafter\r\n\xff"
    assert process.returncode == 0


def test_a_machine_without_a_console(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    with _started("--console", "box") as process:
        assert process.communicate(timeout=DEADLINE_S)[0] == b""
    assert process.returncode == 1
    assert "the machine has no console (any more)" in capfd.readouterr().err


async def test_following_to_the_end(machine: Machine) -> None:
    machine.console.write_text("one\n")
    machine.start()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shim.cli", "logs", "--console", "-f", "box"), stdout=subprocess.PIPE, cwd=_ROOT
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_S):
        assert await process.stdout.readline() == b"one\n"
        with machine.console.open("a") as file:
            file.write("two\n")
        assert await process.stdout.readline() == b"two\n"
        with machine.console.open("a") as file:
            file.write("three\n")
        _rotate(machine.console)
        machine.console.write_text("four\n")
        assert await process.stdout.readline() == b"three\n"
        assert await process.stdout.readline() == b"four\n"
        machine.end()
        machine.console.write_text("four\nfive\n")  # what the shim still takes from QEMU
        assert await process.stdout.read() == b"five\n"
        assert await process.wait() == 0


def test_rotated_twice_between_two_looks(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text("one ")
    reader = Console(console)
    read = b"".join(reader.all())
    with console.open("a") as file:
        file.write("two ")
    _rotate(console)
    console.write_text("three ")
    _rotate(console)
    console.write_text("four")
    read += b"".join(reader.new()) + b"".join(reader.new())
    reader.close()
    assert read == b"one two three four"


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "console").write_text("x")
    (tmp_path / "console.1").write_text("y")
    before = os.listdir("/proc/self/fd")
    reader = Console(tmp_path / "console")
    assert b"".join(reader.all()) == b"yx"
    _rotate(tmp_path / "console")
    assert b"".join(reader.new()) == b""
    reader.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"a\tb\r\nc\n", "a\tb\nc\n"),
        (b"\x1b[2J\x1b]0;title\x07", "?[2J?]0;title?"),
        (b"\xc2\x9b31m", "?31m"),  # the same introducer as one character
        (b"\xff", "�"),
        ("grün\n".encode(), "grün\n"),
    ],
)
def test_a_terminal_is_not_told_what_to_do(data: bytes, shown: str) -> None:
    assert Harmless()(data).decode() == shown


def test_what_is_cut_in_two_is_shown_as_if_it_were_not() -> None:
    """A guest's lines come as QEMU writes them, some bytes at a time."""
    data = "grün\r\n\rx\r\n".encode()
    made_harmless = Harmless()
    assert b"".join(made_harmless(data[at : at + 1]) for at in range(len(data))).decode() == "grün\n?x\n"
