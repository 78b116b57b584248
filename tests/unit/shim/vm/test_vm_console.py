"""The console: bounded, never in QEMU's way, quoted readably."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.vm.console import LINE_LIMIT, TAIL_LIMIT, Console


@pytest.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    made = Console(tmp_path / "console", limit_kib=16)
    yield made
    made.close()


async def write(console: Console, data: bytes) -> None:
    """As QEMU: all of it, and the end of the stream."""
    writer = console.child.dup()
    console.release_child()
    writer.setblocking(False)
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().sock_sendall(writer, data)
    writer.close()
    console.close()


async def test_what_is_printed_is_in_the_file(console: Console) -> None:
    await write(console, b"hello\r\nworld\r\n")
    assert console.path.read_bytes() == b"hello\r\nworld\r\n"
    assert console.tail(9) == ["hello", "world"]


async def test_the_files_together_never_exceed_the_limit_and_keep_the_last_half(console: Console) -> None:
    data = b"".join(b"%07d\n" % n for n in range(12_800))
    await write(console, data)
    old = console.path.with_name("console.1").read_bytes()
    new = console.path.read_bytes()
    assert len(old) + len(new) <= 16 * 1024
    assert len(old) + len(new) >= 8 * 1024
    assert data.endswith(old + new)


async def test_the_tail_is_bounded_too(console: Console) -> None:
    await write(console, b"x\n" * TAIL_LIMIT)
    assert len(console.tail(1 << 30)) <= TAIL_LIMIT // 2


async def test_a_line_of_the_tail_is_bounded_too(console: Console) -> None:
    await write(console, b"first " + b"x" * 10_000 + b"\nlast\n")
    assert console.tail(2) == ["first " + "x" * (LINE_LIMIT - 6), "last"]


async def test_a_rotation_that_fails_ends_the_file_and_nothing_else(tmp_path: Path) -> None:
    """Its directory has gone."""
    (tmp_path / "gone").mkdir()
    console = Console(tmp_path / "gone" / "console", limit_kib=16)
    console.path.unlink()
    (tmp_path / "gone").rmdir()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    await write(console, b"x" * 500_000 + b"\nlast words\n")
    assert console.tail(1) == ["last words"]
    assert console.write_error
    assert complaints == []


async def test_the_file_is_for_root_only(console: Console) -> None:
    assert console.path.stat().st_mode & 0o777 == 0o600


async def test_a_file_that_cannot_be_written_stops_neither_reading_nor_the_tail(tmp_path: Path) -> None:
    console = Console(tmp_path / "missing" / "console", limit_kib=16)
    await write(console, b"x" * 500_000 + b"\nlast words\n")
    assert console.tail(1) == ["last words"]
    assert "missing" in console.write_error


async def test_a_full_disk_stops_neither_reading_nor_the_tail(console: Console) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, console._fd)
    os.close(full)
    await write(console, b"lost\nlast words\n")
    assert console.tail(1) == ["last words"]
    assert "No space left" in console.write_error


async def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "console").symlink_to(tmp_path / "victim")
    console = Console(tmp_path / "console", limit_kib=16)
    await write(console, b"hello\n")
    assert (tmp_path / "victim").read_text() == "precious"
    assert console.write_error


async def test_the_tail_holds_no_control_characters(console: Console) -> None:
    await write(console, b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\r\n\x07be\x00ll\r\n\r\n\xff\xfe\r\n")
    assert console.tail(9)[:2] == ["SeaBIOS", "bell"]
    assert all(line.isprintable() for line in console.tail(9))


async def test_the_tail_of_a_panic_ends_with_its_reason(console: Console) -> None:
    await write(console, b"one\ntwo\nTraceback\n[ 1.0] Kernel panic - not syncing: no init\nCPU: 0\nRAX: 1\n" * 2)
    assert console.tail(2) == ["Traceback", "[ 1.0] Kernel panic - not syncing: no init"]


async def test_close_twice_and_the_end_by_the_peer(console: Console) -> None:
    console.child.shutdown(socket.SHUT_RDWR)
    console.close()
    console.close()
    assert console.tail(9) == []


async def test_words_are_awaited_and_told_once_they_are_printed(console: Console) -> None:
    printed = console.expect("all up")
    writer = console.child.dup()
    loop = asyncio.get_running_loop()
    writer.setblocking(False)
    await loop.sock_sendall(writer, b"starting, al")
    await asyncio.sleep(0)
    assert not printed.done()
    await loop.sock_sendall(writer, b"l up\n")
    writer.close()
    async with asyncio.timeout(10):
        await printed


async def test_words_that_were_printed_before_count(console: Console) -> None:
    await write(console, b"all up\n")
    assert console.expect("all up").done()
    withdrawn = console.expect("never")
    withdrawn.cancel()
