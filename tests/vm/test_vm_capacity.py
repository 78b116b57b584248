"""Memory that a running guest takes and gives back, and one that does neither."""

import pytest

from harness.machine import Guest, Start
from shim.errors import GuestError

pytestmark = pytest.mark.timeout(240)

_STALL_S = 30.0
_LIMIT_S = 60.0


async def settle(guest: Guest, requested_mib: int) -> int:
    return await guest.vm.settle_memory(requested_mib, stall_s=_STALL_S, limit_s=_LIMIT_S)


async def memory_mib(guest: Guest) -> int:
    seen = await guest.sees("memory_kib")
    assert isinstance(seen, int)
    return seen >> 10


async def test_it_is_there_when_the_call_is_over(start: Start) -> None:
    async with start() as guest:
        await guest.boot()
        base_mib = await memory_mib(guest)
        for requested_mib in (130, 1024, 1024):
            assert await settle(guest, requested_mib) == requested_mib
            assert await memory_mib(guest) == base_mib + requested_mib
        # What the guest's kernel keeps for itself stays (docs/decisions/0003).
        for requested_mib in (514, 0):
            has_mib = await settle(guest, requested_mib)
            assert requested_mib <= has_mib <= requested_mib + 64
            assert await memory_mib(guest) == base_mib + has_mib


@pytest.mark.release
async def test_a_guest_that_stands_still_is_told_of_and_goes_on_later(start: Start) -> None:
    async with start() as guest:
        await guest.vm.resize_memory(512)
        await guest.boot()
        await settle(guest, 512)
        await guest.vm.pause()
        for requested_mib, words in ((256, "gave back 0 of 256 MiB"), (1024, "took 0 of 512 MiB")):
            with pytest.raises(GuestError, match=words):
                await guest.vm.settle_memory(requested_mib, stall_s=0.5, limit_s=_LIMIT_S)
        await guest.vm.run()
        await settle(guest, 256)
        await settle(guest, 1024)
