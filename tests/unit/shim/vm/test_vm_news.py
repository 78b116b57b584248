"""How much QEMU is given to tell a guest of its ports."""

import asyncio

import pytest

from shim.vm import news
from shim.vm.news import ROOM, News


async def _all_but(count: int, made: News) -> list[str]:
    """Fill it until a further port has to wait."""
    devices = [f"port-{number}" for number in range(count)]
    async with asyncio.timeout(5):
        for device in devices:
            await made.of_new(device)
    return devices


async def test_a_new_port_waits_until_the_guest_has_read_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_NEW_READ_S", 3600)
    made = News()
    devices = await _all_but(ROOM // 3, made)
    waiting = [asyncio.create_task(made.of_new(f"late-{number}")) for number in range(2)]
    await asyncio.wait(waiting, timeout=0.05)
    assert not any(task.done() for task in waiting)
    made.read("of another machine")
    made.read(devices[0])
    made.read(devices[0])
    done, pending = await asyncio.wait(waiting, timeout=0.2)
    assert (len(done), len(pending)) == (1, 1)
    made.read(devices[1])
    await asyncio.wait_for(asyncio.gather(*pending), 5)


async def test_what_is_never_opened_is_taken_as_read_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_NEW_READ_S", 0.05)
    await _all_but(5 * ROOM, News())


async def test_removals_pass_by_themselves() -> None:
    made = News()
    async with asyncio.timeout(5):
        await asyncio.gather(*(made.of_removed(f"port-{number}") for number in range(3 * ROOM)))
        await made.of_new("port-0")


async def test_who_gives_up_waiting_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_NEW_READ_S", 3600)
    made = News()
    devices = await _all_but(ROOM // 3, made)
    given_up = asyncio.create_task(made.of_new("given-up"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.wait([given_up])
    made.read(devices[0])
    await asyncio.wait_for(made.of_new("another"), 5)
