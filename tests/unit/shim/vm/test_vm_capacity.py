"""Memory that a running guest takes or gives back: what QEMU is asked, and what is made of its events."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from shim.errors import GuestError, MachineError
from shim.vm import capacity
from shim.vm.qmp import Qmp
from tests.unit.shim.vm.qmp_peer import QmpPeer
from ttrpc import Code

_MIB = 1 << 20
_NEVER_S = 20.0


class Guest:
    """A memory device whose guest does what the test says."""

    def __init__(self, peer: QmpPeer) -> None:
        self._peer = peer
        self.asked: list[object] = []
        # Set when its size was looked at after it was asked for another.
        self.waited_for = asyncio.Event()
        self.has(1024)
        peer.before_answer["qom-set"] = self._ask
        peer.before_answer["qom-get"] = self._look

    def has(self, mib: int) -> None:
        """It has so much now, and nobody is told."""
        self._peer.returns["qom-get"] = mib * _MIB

    def tells(self, mib: int, device: str = "memory") -> None:
        """It has so much now, and QEMU says so."""
        self.has(mib)
        self._peer.event("MEMORY_DEVICE_SIZE_CHANGE", id=device, size=mib * _MIB)

    def _ask(self) -> None:
        self.asked.append(self._peer.commands[-1][1]["value"])

    def _look(self) -> None:
        if self.asked:
            self.waited_for.set()


@pytest.fixture
async def qmp(peer: QmpPeer) -> AsyncIterator[Qmp]:
    qmp = Qmp(command_timeout_s=10)
    peer.start()
    await qmp.open(peer.ours)
    yield qmp
    await qmp.close(10)


@pytest.fixture
async def guest(peer: QmpPeer) -> Guest:
    return Guest(peer)


async def test_it_is_over_when_the_guest_has_what_was_asked(qmp: Qmp, peer: QmpPeer, guest: Guest) -> None:
    settling = asyncio.create_task(capacity.settle(qmp, 2048, stall_s=_NEVER_S, limit_s=_NEVER_S))
    await guest.waited_for.wait()
    for step_mib in (1152, 2048):
        assert not settling.done()
        guest.tells(step_mib)
    assert await settling == 2048
    assert guest.asked == [2048 * _MIB]
    path = "/machine/peripheral/memory"
    assert ("qom-set", {"path": path, "property": "requested-size", "value": 2048 * _MIB}) in peer.commands
    assert ("qom-get", {"path": path, "property": "size"}) in peer.commands


async def test_what_the_guest_has_already_needs_no_event(qmp: Qmp, guest: Guest) -> None:
    await capacity.settle(qmp, 1024, stall_s=_NEVER_S, limit_s=_NEVER_S)
    assert guest.asked == [1024 * _MIB]


async def test_a_guest_that_does_nothing_is_told_of(qmp: Qmp, guest: Guest) -> None:
    with pytest.raises(GuestError, match="the guest gave back 0 of 768 MiB of memory") as caught:
        await capacity.settle(qmp, 256, stall_s=0.05, limit_s=_NEVER_S)
    assert caught.value.status is Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("requested_mib", "step_mib", "words"),
    [(256, 640, "gave back 384 of 768 MiB"), (2048, 1152, "took 128 of 1024 MiB")],
)
async def test_how_far_it_got_is_told(qmp: Qmp, guest: Guest, requested_mib: int, step_mib: int, words: str) -> None:
    settling = asyncio.create_task(capacity.settle(qmp, requested_mib, stall_s=0.3, limit_s=_NEVER_S))
    await guest.waited_for.wait()
    guest.tells(step_mib)
    with pytest.raises(GuestError, match=words):
        await settling


async def test_what_the_kernel_has_of_it_may_stay(qmp: Qmp, guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the memory is its own. The request is not taken back."""
    monkeypatch.setattr(capacity, "KEPT_S", 0.1)
    settling = asyncio.create_task(capacity.settle(qmp, 256, stall_s=_NEVER_S, limit_s=_NEVER_S))
    await guest.waited_for.wait()
    guest.tells(256 + 1024 // 4)
    assert await asyncio.wait_for(settling, 10) == 512
    assert guest.asked == [256 * _MIB]


async def test_a_small_part_that_does_not_come_back_at_all_is_told_of(
    qmp: Qmp, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "KEPT_S", 0.1)
    with pytest.raises(GuestError, match="gave back 0 of 24 MiB"):
        await capacity.settle(qmp, 1000, stall_s=0.3, limit_s=_NEVER_S)


async def test_a_guest_that_never_ends_is_told_of(qmp: Qmp, guest: Guest) -> None:
    """It goes up and down for ever: each event is news, and there is a limit in all."""
    settling = asyncio.create_task(capacity.settle(qmp, 256, stall_s=_NEVER_S, limit_s=0.3))
    mib = 1022
    while not settling.done():
        guest.tells(mib)
        mib = 2044 - mib + 2
        await asyncio.wait((settling,), timeout=0.02)
    with pytest.raises(GuestError, match="gave back"):
        await settling


async def test_another_device_s_event_is_no_news(qmp: Qmp, guest: Guest) -> None:
    settling = asyncio.create_task(capacity.settle(qmp, 256, stall_s=0.3, limit_s=_NEVER_S))
    await guest.waited_for.wait()
    guest.tells(256, device="other")
    with pytest.raises(GuestError):
        await settling


async def test_a_qemu_that_refuses_is_quoted(qmp: Qmp, peer: QmpPeer, guest: Guest) -> None:
    peer.refused["qom-set"] = "'requested-size' cannot exceed the memory backend size"
    with pytest.raises(MachineError, match="cannot exceed the memory backend size"):
        await capacity.settle(qmp, 4096, stall_s=_NEVER_S, limit_s=_NEVER_S)


async def test_a_qemu_without_the_device_is_told_of(qmp: Qmp, peer: QmpPeer) -> None:
    with pytest.raises(MachineError, match="does not tell the size"):
        await capacity.settle(qmp, 4096, stall_s=_NEVER_S, limit_s=_NEVER_S)
