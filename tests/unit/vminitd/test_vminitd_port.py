"""A port stands in for a socket. A terminal's slave is a character device like it, and can be had without a machine."""

import asyncio
import os
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.frames import END
from ttrpc.context import Peer
from vminitd.port import Port, find


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """The master's descriptor, and the slave's path."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(slave)
    os.close(master)


@pytest.fixture
def sys_class(tmp_path: Path) -> str:
    for port, name in (("vport1p1", "qemubox.control\n"), ("vport1p2", "qemubox-port-001\n"), ("vport1p3", None)):
        (tmp_path / port).mkdir()
        if name is not None:
            (tmp_path / port / "name").write_text(name)
    return str(tmp_path)


def test_a_port_is_found_by_its_name(sys_class: str) -> None:
    assert find("qemubox-port-001", sys_class) == "/dev/vport1p2"
    assert find("qemubox-port-00", sys_class) is None
    assert find("x", f"{sys_class}/none") is None


async def test_asyncio_takes_it_for_a_socket(terminal: tuple[int, str]) -> None:
    master, path = terminal
    port = Port(path)
    loop = asyncio.get_running_loop()
    receiving = asyncio.create_task(loop.sock_recv(port, 3))
    await asyncio.sleep(0)
    os.write(master, b"abcdef")
    assert await receiving == b"abc"
    buffer = bytearray(8)
    assert await loop.sock_recv_into(port, buffer) == 3
    assert buffer[:3] == b"def"
    await loop.sock_sendall(port, b"hello")
    assert os.read(master, 100) == b"hello"
    port.close()


async def test_streams_of_asyncio_go_through_it(terminal: tuple[int, str]) -> None:
    """As ttrpc uses it."""
    master, path = terminal
    reader, writer = await asyncio.open_connection(sock=Port(path))
    os.write(master, b"ping")
    assert await reader.readexactly(4) == b"ping"
    writer.writelines([b"po", b"ng"])
    await writer.drain()
    assert os.read(master, 100) == b"pong"
    writer.close()
    await writer.wait_closed()
    assert os.read(master, 100) == END


def test_closing_is_said_once(terminal: tuple[int, str]) -> None:
    master, path = terminal
    port = Port(path)
    port.close()
    port.close()
    assert os.read(master, 100) == END
    assert port.fileno() == -1


def test_a_silent_farewell(terminal: tuple[int, str]) -> None:
    master, path = terminal
    Port(path, farewell=b"").close()
    os.set_blocking(master, False)
    with pytest.raises(BlockingIOError):
        os.read(master, 1)


def test_a_full_port_blocks_and_is_no_end(terminal: tuple[int, str]) -> None:
    _, path = terminal
    port = Port(path)

    def fill() -> None:
        for _ in range(1000):
            port.send(b"x" * 4096)

    with pytest.raises(BlockingIOError):
        fill()
    port.close()


def test_a_port_that_is_not_there_leaves_no_descriptor() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Port("/nonexistent/port")
    assert set(os.listdir("/proc/self/fd")) == before


def test_nobody_asks_who_the_peer_is(terminal: tuple[int, str]) -> None:
    port = Port(terminal[1])
    assert Peer.of(port) == Peer()
    port.close()
