"""The kernel's device events: their text, and waiting on them."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from vminitd.errors import DeviceError
from vminitd.uevent import Uevent, Uevents, kernel_socket, parse

ADD = b"add@/devices/pci0000:00/virtio3/block/vdb\0ACTION=add\0DEVPATH=/x\0SUBSYSTEM=block\0SEQNUM=1\0"


def test_an_event_is_read() -> None:
    assert parse(ADD) == Uevent("add", "/devices/pci0000:00/virtio3/block/vdb", "block")


@pytest.mark.parametrize("message", [b"", b"libudev\0\xfe\xed\xca\xfe", b"@/devices", b"add@", b"add@x", b"\xff\xfe"])
def test_other_messages_are_none(message: bytes) -> None:
    assert parse(message) is None


def test_pairs_without_a_value_do_no_harm() -> None:
    assert parse(b"bind@/devices/a\0NOTHING\0SUBSYSTEM=virtio\0") == Uevent("bind", "/devices/a", "virtio")


@pytest.fixture
async def events() -> AsyncIterator[tuple[Uevents, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    uevents = Uevents(ours)
    yield uevents, theirs
    uevents.close()
    theirs.close()


async def test_who_waits_looks_again_after_each_event(events: tuple[Uevents, socket.socket]) -> None:
    uevents, kernel = events
    looks: list[int] = []
    looked = asyncio.Event()

    def look() -> str | None:
        looks.append(1)
        looked.set()
        return "vdb" if len(looks) == 3 else None

    waiting = asyncio.create_task(uevents.until(look, "a disk", 10))
    for _ in range(3):
        await looked.wait()
        looked.clear()
        kernel.send(ADD)
    assert await waiting == "vdb"
    assert len(looks) == 3


async def test_what_is_there_already_needs_no_event(events: tuple[Uevents, socket.socket]) -> None:
    assert await events[0].until(lambda: 0, "zero", 10) == 0


async def test_what_never_comes_is_named(events: tuple[Uevents, socket.socket]) -> None:
    with pytest.raises(DeviceError, match=r"erofs on disk 'x' did not appear within 0\.01 s"):
        await events[0].until(lambda: None, "erofs on disk 'x'", 0.01)


async def test_many_may_wait(events: tuple[Uevents, socket.socket]) -> None:
    uevents, kernel = events
    there: list[str] = []
    waits = [asyncio.create_task(uevents.until(lambda: there or None, "all", 10)) for _ in range(5)]
    await asyncio.sleep(0)
    there.append("x")
    kernel.send(ADD)
    assert await asyncio.gather(*waits) == [["x"]] * 5


def test_the_kernel_lets_root_listen() -> None:
    with kernel_socket() as sock:
        assert sock.family == socket.AF_NETLINK
        assert not sock.getblocking()
