"""The console as a socket: several read, one writes, and nobody can hold up the guest or take memory."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.vm.console import Console
from shim.vm.offered import CLIENTS_MOST, READER, WRITER, listening
from tests.unit.shim.observe import same_fds


class Site:
    """A console that is offered, and QEMU's end of it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "console.sock"
        self.console = Console(directory / "console", limit_kib=16)
        self.console.offer(self.path)
        self.guest = self.console.child.dup()
        self.guest.setblocking(False)
        self.console.release_child()
        self._loop = asyncio.get_running_loop()

    async def attach(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await self._loop.sock_connect(sock, str(self.path))
        return sock

    async def read(self, sock: socket.socket, size: int) -> bytes:
        """So many bytes, or fewer where the other end hangs up."""
        data = b""
        async with asyncio.timeout(10):
            while len(data) < size and (more := await self._loop.sock_recv(sock, size - len(data))):
                data += more
        return data

    async def print(self, data: bytes) -> None:
        async with asyncio.timeout(10):
            await self._loop.sock_sendall(self.guest, data)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    made.console.close()
    made.guest.close()


async def test_only_its_owner_may_connect(site: Site) -> None:
    assert stat.S_IMODE(site.path.stat().st_mode) == 0o600


def test_its_mode_is_not_made_by_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is the whole process's: a hook that a thread starts just then would have it."""
    masks: list[int] = []
    monkeypatch.setattr(os, "umask", masks.append)
    listening(tmp_path / "socket").close()
    assert masks == []
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600


async def test_one_writes_and_all_read_from_the_last_lines_on(site: Site) -> None:
    await site.print(b"before\n")
    first = await site.attach()
    assert await site.read(first, 1) == WRITER
    assert await site.read(first, 7) == b"before\n"
    second = await site.attach()
    assert await site.read(second, 8) == READER + b"before\n"
    await site.print(b"after\n")
    assert await site.read(first, 6) == await site.read(second, 6) == b"after\n"
    second.send(b"dropped")
    first.send(b"typed")
    assert await site.read(site.guest, 5) == b"typed"
    first.close()
    async with asyncio.timeout(10):
        while True:  # until it was noticed
            third = await site.attach()
            role = await site.read(third, 1)
            if role == WRITER:
                break
            third.close()
    third.send(b"now me")
    assert await site.read(site.guest, 6) == b"now me"
    second.close()
    third.close()
    assert (site.console.path).read_bytes() == b"before\nafter\n"


async def test_who_does_not_read_is_dropped_and_nobody_waits_for_it(site: Site) -> None:
    idle, well = await site.attach(), await site.attach()
    assert await site.read(well, 1) == READER
    piece, sent = b"x" * 65536, 64
    for _ in range(sent):
        await site.print(piece)
        assert await site.read(well, len(piece)) == piece
    received = await site.read(idle, len(piece) * sent)
    assert 0 < len(received) < 1 << 20  # and then the end of the connection
    idle.close()
    well.close()


async def test_input_that_the_guest_does_not_take_makes_its_writer_wait(site: Site) -> None:
    writer = await site.attach()
    await site.read(writer, 1)
    data = os.urandom(8 << 20)
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(writer, data))
    # What the three sockets' buffers take, and no more.
    done, _ = await asyncio.wait((sending,), timeout=0.3)
    assert not done
    await site.print(b"the guest goes on")
    assert await site.read(writer, 17) == b"the guest goes on"
    assert await site.read(site.guest, len(data)) == data
    await sending
    writer.close()


async def test_a_writer_that_goes_away_in_the_middle_takes_its_input_along(site: Site) -> None:
    writer = await site.attach()
    await site.read(writer, 1)
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(writer, b"y" * (8 << 20)))
    assert not (await asyncio.wait((sending,), timeout=0.2))[0]
    sending.cancel()
    await asyncio.wait((sending,))
    writer.close()
    await site.print(b"z")
    other = await site.attach()
    role = (await site.read(other, 2))[:1]
    assert role in (WRITER, READER)
    other.close()


async def test_not_more_than_that_many(site: Site) -> None:
    clients = [await site.attach() for _ in range(CLIENTS_MOST)]
    for client in clients:
        assert await site.read(client, 1)
    surplus = await site.attach()
    assert await site.read(surplus, 1) == b""
    for client in (*clients, surplus):
        client.close()


async def test_the_end_of_the_machine_is_the_end_of_all_and_nothing_stays(tmp_path: Path) -> None:
    with same_fds():
        site = Site(tmp_path)
        client = await site.attach()
        assert await site.read(client, 1) == WRITER
        await site.print(b"last words")
        site.console.close()
        assert await site.read(client, 100) == b"last words"
        assert not site.path.exists()
        client.close()
        site.guest.close()


async def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    console = Console(tmp_path / "console", limit_kib=16)
    with pytest.raises(OSError, match="too long"):
        console.offer(tmp_path / ("x" * 108))
    console.close()


async def test_what_is_left_of_an_earlier_one_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as earlier:
        earlier.bind(str(tmp_path / "console.sock"))
    site = Site(tmp_path)
    client = await site.attach()
    assert await site.read(client, 1) == WRITER
    client.close()
    site.console.close()
    site.guest.close()
