"""Frames between a namespace's interface and a machine's: a real guest's kernel, its checksums and segments."""

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from harness.machine import Guest, Start
from shim.network import netns, tap
from shim.network.survey import survey
from shim.vm.devices import Nic
from tests.unit.shim.network.places import Place, directory, place

pytestmark = pytest.mark.timeout(240)

_GUEST, _FAR = "10.9.8.2", "10.9.8.1"
_MIB = 1 << 20


@pytest.fixture
def places() -> Iterator[tuple[Place, Place]]:
    """A namespace with eth0 as a network plugin leaves it, and the one that its other end is in."""
    with directory() as parent, place(parent, "inside") as inside, place(parent, "outside") as outside:
        inside.script(
            f"link add eth0 address 02:00:00:00:00:01 type veth peer name far netns {outside.path}",
            "link set eth0 up",
            f"address add {_GUEST}/24 dev eth0",
        )
        outside.script("link set far up", f"address add {_FAR}/24 dev far")
        yield inside, outside


@asynccontextmanager
async def connected(start: Start, inside: Place, *, queues: int) -> AsyncIterator[tuple[Guest, dict[str, object]]]:
    """A machine on the namespace, with the address; and what its driver says of the interface."""
    (interface,) = survey(inside.fd).interfaces
    async with start() as guest:
        fds = tap.connect(inside.fd, interface, name=tap.name_of("eth0", interface.index), queues=queues)
        await guest.vm.add_nic(Nic("nic0", interface.mac, tuple(fds), mtu=interface.mtu))
        for fd in fds:
            os.close(fd)
        await guest.boot()
        driver = await guest.ask("bring_up", interface.mac, _GUEST, interface.mtu)
        assert isinstance(driver, dict)
        yield guest, driver
    assert "loqb-eth0" not in inside.ip("link show"), "it ends with QEMU"
    tap.disconnect(inside.fd, "eth0")


def _take_and_give(server: socket.socket, count: int) -> tuple[str, str]:
    """The checksums of what came by one connection and of `count` bytes sent on it at the same time."""
    data = os.urandom(_MIB) * (count // _MIB)
    digest = hashlib.sha256()
    server.settimeout(60)
    connection, _ = server.accept()
    with connection:
        connection.settimeout(60)
        while piece := connection.recv(1 << 18):
            digest.update(piece)
        connection.sendall(data)
    return digest.hexdigest(), hashlib.sha256(data).hexdigest()


async def _check_streams(guest: Guest, outside: Place) -> None:
    with netns.within(outside.fd, lambda: socket.create_server((_FAR, 0))) as server:
        serving = asyncio.create_task(asyncio.to_thread(_take_and_give, server, 8 * _MIB))
        sums = await guest.ask("exchange", _FAR, server.getsockname()[1], 8 * _MIB)
        assert sums == list(await serving)


def _echo(sock: socket.socket, count: int) -> None:
    sock.settimeout(60)
    for _ in range(count):
        data, sender = sock.recvfrom(65536)
        sock.sendto(data, sender)


async def _check_datagrams(guest: Guest, outside: Place, mtu: int) -> None:
    """As large as a frame can be, one more, and in several."""
    sizes = [1, 17, 1000, mtu - 28, mtu - 27, 3 * mtu]
    with netns.within(outside.fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        sock.bind((_FAR, 0))
        echoing = asyncio.create_task(asyncio.to_thread(_echo, sock, len(sizes)))
        assert await guest.ask("echoes", _FAR, sock.getsockname()[1], sizes) == [True] * len(sizes)
        await echoing


@pytest.mark.release
@pytest.mark.parametrize("mtu", [1450, 9000])
async def test_streams_and_datagrams_keep_their_checksums(start: Start, places: tuple[Place, Place], mtu: int) -> None:
    inside, outside = places
    inside.ip(f"link set eth0 mtu {mtu}")
    outside.ip(f"link set far mtu {mtu}")
    async with connected(start, inside, queues=1) as (guest, driver):
        assert driver == {"name": "eth0", "mtu": mtu, "queues": [1, 1]}
        await _check_streams(guest, outside)
        await _check_datagrams(guest, outside, mtu)


async def test_several_queues(start: Start, places: tuple[Place, Place]) -> None:
    """With one of them in use, as in a guest that has one vCPU yet, and with all."""
    inside, outside = places
    async with connected(start, inside, queues=4) as (guest, driver):
        assert driver == {"name": "eth0", "mtu": 1500, "queues": [4, 1]}
        await _check_streams(guest, outside)
        await guest.ask("channels", "eth0", 4)
        assert await guest.ask("channels", "eth0") == [4, 4]
        await _check_streams(guest, outside)
        await _check_datagrams(guest, outside, 1500)
