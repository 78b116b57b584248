"""Commands with deadlines, descriptors with the commands that take them, events, and the loss of all of it."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from shim.errors import MachineError
from shim.vm.qmp import Event, Qmp
from tests.unit.shim.vm.qmp_peer import QmpPeer


@pytest.fixture
async def qmp(peer: QmpPeer) -> AsyncIterator[Qmp]:
    made = Qmp(command_timeout_s=10)
    peer.start()
    await made.open(peer.ours)
    yield made
    await made.close(10)


async def test_a_command_and_its_arguments(qmp: Qmp, peer: QmpPeer) -> None:
    assert qmp.connected
    assert await qmp.execute("object-add", {"id": "x"}) == {}
    assert peer.commands[-1] == ("object-add", {"id": "x"})


async def test_a_refusal_quotes_the_command_and_qemu(qmp: Qmp, peer: QmpPeer) -> None:
    peer.refused["device_add"] = "Bus 'slots' not found"
    with pytest.raises(MachineError, match="QEMU refused device_add layer0: Bus 'slots' not found"):
        await qmp.execute("device_add", {"driver": "x", "id": "layer0"})
    assert await qmp.execute("cont") == {}


async def test_a_refusal_does_nothing_to_logs_and_terminals(qmp: Qmp, peer: QmpPeer) -> None:
    """It may be a guest's: of a QEMU that was taken over."""
    peer.refused["qom-set"] = "\x1b]0;title\x07\nlevel=error " + "x" * 100_000
    with pytest.raises(MachineError) as refusal:
        await qmp.execute("qom-set", {"id": "balloon"})
    assert refusal.value.message.isprintable()
    assert len(refusal.value.message) < 3000


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5000, b"1" * 5000, b'{"return":{},"id":[]}', b'{"error":5}', b"5"]
)
async def test_what_is_no_message_ends_the_connection_and_nothing_else(qmp: Qmp, peer: QmpPeer, line: bytes) -> None:
    peer.say(line)
    with pytest.raises(MachineError, match="QEMU went away during query-status"):
        await qmp.execute("query-status")
    await qmp.drain(10)
    await qmp.close(10)
    assert not qmp.connected


async def test_a_command_has_a_deadline_and_the_connection_outlives_it(qmp: Qmp, peer: QmpPeer) -> None:
    peer.silent.add("stop")
    with pytest.raises(MachineError, match=r"QEMU did not answer stop within 0\.05 s"):
        await qmp.execute("stop", timeout_s=0.05)
    assert await qmp.execute("cont") == {}


async def test_a_connection_lost_during_a_command(qmp: Qmp, peer: QmpPeer) -> None:
    peer.silent.add("stop")
    peer.before_answer["stop"] = peer.hang_up
    with pytest.raises(MachineError, match="QEMU went away during stop"):
        await qmp.execute("stop")
    assert not qmp.connected
    with pytest.raises(MachineError, match="QEMU went away"):
        await qmp.execute("cont")
    with pytest.raises(MachineError, match="QEMU went away before getfd"):
        await qmp.get_fd("x", 0)


async def test_a_descriptor_arrives_with_its_command(qmp: Qmp, peer: QmpPeer) -> None:
    files = [os.memfd_create(f"file{n}") for n in range(20)]
    for number, fd in enumerate(files):
        os.write(fd, b"content %d" % number)
    await asyncio.gather(*(qmp.add_fd(number, fd) for number, fd in enumerate(files)))
    await qmp.get_fd("tap", files[0])
    assert peer.files == {number: b"content %d" % number for number in range(20)} | {"tap": b"content 0"}
    for fd in files:
        os.close(fd)


async def test_events_reach_every_handler_until_it_is_removed(qmp: Qmp, peer: QmpPeer) -> None:
    first: list[Event] = []
    second: list[Event] = []
    stop = qmp.on_event(first.append)
    qmp.on_event(second.append)
    peer.event("DEVICE_DELETED", device="layer0")
    await qmp.execute("query-status")
    stop()
    stop()
    peer.event("STOP")
    await qmp.execute("query-status")
    assert first == [Event("DEVICE_DELETED", {"device": "layer0"})]
    assert [event.name for event in second] == ["DEVICE_DELETED", "STOP"]


async def test_the_last_events_before_the_end_are_told(qmp: Qmp, peer: QmpPeer) -> None:
    events: list[str] = []
    qmp.on_event(lambda event: events.append(event.name))
    peer.event("GUEST_PANICKED")
    peer.event("SHUTDOWN", guest=True, reason="guest-panic")
    peer.hang_up()
    await qmp.drain(10)
    assert events == ["GUEST_PANICKED", "SHUTDOWN"]


async def test_drain_gives_up_on_a_connection_that_stays(qmp: Qmp) -> None:
    await qmp.drain(0.01)
    assert qmp.connected


async def test_a_qemu_that_does_not_greet(peer: QmpPeer) -> None:
    peer.start(greet=False)
    qmp = Qmp(command_timeout_s=0.05)
    with pytest.raises(MachineError, match=r"QEMU did not greet within 0\.05 s"):
        await qmp.open(peer.ours)
    await qmp.close(1)


async def test_a_qemu_that_hangs_up_at_once(peer: QmpPeer) -> None:
    peer.hang_up()
    qmp = Qmp(command_timeout_s=10)
    with pytest.raises(MachineError, match="closed its control connection"):
        await qmp.open(peer.ours)
    await qmp.close(1)


async def test_close_twice(qmp: Qmp) -> None:
    await qmp.close(10)
    await qmp.close(10)
    assert not qmp.connected
