"""The four ways in which a call to vminitd can end."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from shim import deadlines
from shim.errors import GuestError, MachineError
from shim.guest import Guest, connect
from shim.vm.states import Cause, Exit
from ttrpc import Client, Code, ConnectionClosed, StatusError

Died = asyncio.Future[Exit]


@pytest.fixture
async def guest() -> AsyncIterator[tuple[Guest, Died]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    died: Died = asyncio.get_running_loop().create_future()
    guest = Guest(Client(ours), died)
    yield guest, died
    await guest.close()
    theirs.close()


async def _answer(result: str | StatusError) -> str:
    await asyncio.sleep(0)
    if isinstance(result, StatusError):
        raise result
    return result


async def _never() -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_answer(guest: tuple[Guest, Died]) -> None:
    assert await guest[0].call(_answer("yes"), deadline_s=5) == "yes"
    assert guest[0].alive


async def test_an_error_of_vminitd_keeps_its_status(guest: tuple[Guest, Died]) -> None:
    with pytest.raises(GuestError) as caught:
        await guest[0].call(_answer(StatusError(Code.NOT_FOUND, "no such thing")), deadline_s=5)
    assert (caught.value.status, caught.value.message) == (Code.NOT_FOUND, "no such thing")


async def test_a_deadline(guest: tuple[Guest, Died]) -> None:
    with pytest.raises(GuestError) as caught:
        await guest[0].call(_never(), deadline_s=0.01)
    assert caught.value.status is Code.DEADLINE_EXCEEDED
    assert "within 0.01 s" in caught.value.message


async def test_the_end_of_the_machine(guest: tuple[Guest, Died]) -> None:
    call = asyncio.create_task(guest[0].call(_never(), deadline_s=None))
    await asyncio.sleep(0)
    guest[1].set_result(Exit(Cause.PANIC, 0, "no init"))
    with pytest.raises(MachineError, match="the virtual machine is gone: the guest's kernel panicked: no init"):
        await call
    assert not guest[0].alive


async def test_a_closed_connection_waits_for_the_reason(guest: tuple[Guest, Died]) -> None:
    call = asyncio.create_task(guest[0].call(_answer(ConnectionClosed("gone")), deadline_s=None))
    asyncio.get_running_loop().call_later(0.02, guest[1].set_result, Exit(Cause.KILLED, -9))
    with pytest.raises(MachineError, match="it was stopped"):
        await call


async def test_a_closed_connection_of_a_machine_that_lives(
    guest: tuple[Guest, Died], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "LAST_WORDS_S", 0.01)
    with pytest.raises(MachineError, match="still runs"):
        await guest[0].call(_answer(ConnectionClosed("gone")), deadline_s=None)


async def test_giving_up_cancels_the_call_and_nothing_else(guest: tuple[Guest, Died]) -> None:
    inner = asyncio.create_task(_never())
    call = asyncio.create_task(guest[0].call(inner, deadline_s=None))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call, inner])
    assert call.cancelled()
    assert inner.cancelled()
    assert not guest[1].done()


async def test_one_end_ends_every_call(guest: tuple[Guest, Died]) -> None:
    calls = [asyncio.create_task(guest[0].call(_never(), deadline_s=None)) for _ in range(5)]
    await asyncio.sleep(0)
    guest[1].set_result(Exit(Cause.RESET, 0))
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [MachineError] * 5


async def test_a_machine_that_cannot_be_reached_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its vminitd has hung up, and it runs on."""
    monkeypatch.setattr(deadlines, "LAST_WORDS_S", 0.01)
    ours, theirs = socket.socketpair()
    guest = Guest(connect(ours), asyncio.get_running_loop().create_future())
    unreachable = asyncio.create_task(guest.unreachable())
    await asyncio.sleep(0.05)
    assert not unreachable.done()
    theirs.close()
    await asyncio.wait_for(unreachable, 10)
    await guest.close()


async def test_a_machine_that_is_gone_is_not_told_of_as_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "LAST_WORDS_S", 0.01)
    ours, theirs = socket.socketpair()
    died: Died = asyncio.get_running_loop().create_future()
    guest = Guest(connect(ours), died)
    unreachable = asyncio.create_task(guest.unreachable())
    died.set_result(Exit(Cause.KILLED, -9))
    theirs.close()
    await asyncio.sleep(0.05)
    assert not unreachable.done()
    unreachable.cancel()
    await guest.close()
