"""The ports of a machine, and the way to its guest that they make."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from api.link import port_name, port_token
from shim.errors import MachineError, ResourceError, StateError
from shim.vm.acceptor import TOKEN_BYTES
from shim.vm.hotplug import Hotplug
from shim.vm.link import Link
from shim.vm.machine import MAX_PORTS, STREAM_PORTS, port_id
from shim.vm.ports import Ports
from shim.vm.qmp import Event, Qmp
from tests.unit.shim.vm.qmp_peer import QmpPeer


@pytest.fixture
async def hotplug(peer: QmpPeer) -> AsyncIterator[Hotplug]:
    before = set(os.listdir("/proc/self/fd"))
    qmp = Qmp(command_timeout_s=10)
    peer.start()
    await qmp.open(peer.ours)
    yield Hotplug(qmp)
    await qmp.close(10)
    await peer.stop()
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    made = Ports()
    yield made
    made.close()


def says(number: int, *, opened: bool, use: int = 0) -> Event:
    return Event("VSERPORT_CHANGE", {"id": port_id(number, use), "open": opened})


async def _turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_a_token_is_a_port_s_name_and_of_a_token_s_size() -> None:
    for number in (1, 9, MAX_PORTS):
        assert len(port_token(number)) == TOKEN_BYTES
        assert port_name(port_token(number)) == f"qemubox-port-{number:03}"


async def test_control_is_there_and_given_out_once(ports: Ports) -> None:
    link = Link(ports)
    control = await link.control(1)
    ports.children[0].sendall(b"hello")
    assert control.recv(5) == b"hello"
    control.close()
    with pytest.raises(StateError, match="given out already"):
        await link.control(1)


async def test_the_first_streams_need_nothing_plugged_in(ports: Ports, hotplug: Hotplug, peer: QmpPeer) -> None:
    link = Link(ports)
    for number in range(1, STREAM_PORTS + 1):
        token, opened = await link.new_stream(hotplug)
        assert token == port_token(number)
        ours = await opened
        ports.children[number].sendall(b"x")
        assert ours.recv(1) == b"x"
        ours.close()
    assert peer.names == []


async def test_a_further_stream_is_plugged_in_and_comes_out_when_the_guest_closes_it(
    ports: Ports, hotplug: Hotplug, peer: QmpPeer
) -> None:
    link = Link(ports)
    opened = [await link.new_stream(hotplug) for _ in range(STREAM_PORTS + 1)]
    number = STREAM_PORTS + 1
    assert opened[-1][0] == port_token(number)
    assert peer.names == ["getfd", "chardev-add", "device_add"]
    removed = asyncio.Event()
    peer.before_answer["device_del"] = removed.set
    # A clone hears that it is closed before anybody has opened it.
    link.on_event(says(number, opened=False), hotplug)
    link.on_event(says(number, opened=True), hotplug)
    link.on_event(says(number, opened=False), hotplug)
    async with asyncio.timeout(10):
        await removed.wait()
        while (again := (await link.new_stream(hotplug)))[0] != port_token(number):  # the number is free again
            (await again[1]).close()
    assert ("device_del", {"id": f"port-{number}"}) in peer.commands
    for _, future in (*opened, again):
        (await future).close()


async def test_a_stream_that_the_guest_never_opened_is_taken_back(
    ports: Ports, hotplug: Hotplug, peer: QmpPeer
) -> None:
    link = Link(ports)
    given = [await link.new_stream(hotplug) for _ in range(2)]
    for _, future in given:
        (await future).close()
    link.on_event(says(2, opened=True), hotplug)
    for token, _ in given:
        await link.withdraw(token, hotplug)
    # The second one is the guest's to close.
    assert [name for name in peer.names if name == "device_del"] == ["device_del"]
    assert ("device_del", {"id": "port-1"}) in peer.commands
    token, future = await link.new_stream(hotplug)
    assert token == port_token(1)
    (await future).close()
    await Link(None).withdraw(token, hotplug)


async def test_there_are_only_so_many(ports: Ports) -> None:
    taken = [await ports.take(10) for _ in range(MAX_PORTS - 2)]
    assert taken == list(range(1, MAX_PORTS - 1))
    with pytest.raises(ResourceError, match=f"the {MAX_PORTS - 2} streams"):
        await ports.take(0.05)
    ports.free(7)
    assert await ports.take(10) == 7


async def test_one_that_is_on_its_way_out_is_waited_for(ports: Ports) -> None:
    for _ in range(MAX_PORTS - 2):
        await ports.take(10)
    waiting = [asyncio.create_task(ports.take(10)) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    ports.free(5)
    ports.free(6)
    assert sorted(await asyncio.gather(*waiting)) == [5, 6]


async def test_each_use_of_a_number_has_an_id_of_its_own_and_hears_nothing_of_the_one_before(
    ports: Ports, hotplug: Hotplug, peer: QmpPeer
) -> None:
    """QEMU tells of an id once a second at most: what it says late is of the use before."""
    link = Link(ports)
    removed = asyncio.Event()
    peer.before_answer["device_del"] = removed.set
    for use in range(3):
        token, future = await link.new_stream(hotplug)
        assert token == port_token(1)
        link.on_event(says(1, opened=True, use=use), hotplug)
        if use:
            link.on_event(says(1, opened=False, use=use - 1), hotplug)
        removed.clear()
        link.on_event(says(1, opened=False, use=use), hotplug)
        async with asyncio.timeout(10):
            await removed.wait()
        await _turns()
        (await future).close()
    assert [arguments["id"] for name, arguments in peer.commands if name == "device_del"] == [
        "port-1",
        "port-1.1",
        "port-1.2",
    ]
    assert ports.number("port-1.2") == ports.number("port-x") == ports.number("") == 0


async def test_a_port_that_qemu_refuses_leaves_its_number(ports: Ports, hotplug: Hotplug, peer: QmpPeer) -> None:
    link = Link(ports)
    for _ in range(STREAM_PORTS):
        (await (await link.new_stream(hotplug))[1]).close()
    peer.refused["device_add"] = "no"
    for _ in range(2):
        with pytest.raises(MachineError, match=f"QEMU refused device_add port-{STREAM_PORTS + 1}"):
            await link.new_stream(hotplug)


async def test_what_is_not_given_out_is_closed(hotplug: Hotplug) -> None:
    before = set(os.listdir("/proc/self/fd"))
    link = Link(Ports())
    (await link.control(1)).close()
    await link.close(1)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_without_ports_and_vsock_there_is_no_way(hotplug: Hotplug) -> None:
    link = Link(None)
    assert not link.is_there
    with pytest.raises(StateError, match="has no vsock"):
        await link.new_stream(hotplug)


async def test_qemus_exit_is_the_end_of_every_stream(ports: Ports) -> None:
    control = ports.control()
    control.setblocking(True)
    ports.release_children()
    assert control.recv(1) == b""
    assert isinstance(control, socket.socket)
    control.close()
