"""The bounded queue of a stream."""

import asyncio

import pytest

from ttrpc import Code, StatusError
from ttrpc.inbox import MAX_BYTES, MAX_MESSAGES, Inbox

GONE = StatusError(Code.UNAVAILABLE, "gone")


async def filled() -> Inbox:
    inbox = Inbox()
    for number in range(MAX_MESSAGES):
        assert await inbox.put(bytes([number]))
    return inbox


async def test_order_and_end() -> None:
    inbox = Inbox(b"0")
    await inbox.put(b"1")
    inbox.end()
    assert [await inbox.take(), await inbox.take(), await inbox.take(), await inbox.take()] == [b"0", b"1", None, None]


async def test_error_comes_after_the_messages() -> None:
    inbox = Inbox(b"0")
    inbox.end(GONE)
    inbox.end()  # the first end stands
    assert await inbox.take() == b"0"
    with pytest.raises(StatusError, match="gone"):
        await inbox.take()


async def test_drop_forgets_the_messages() -> None:
    inbox = await filled()
    inbox.drop(GONE)
    with pytest.raises(StatusError, match="gone"):
        await inbox.take()


async def test_take_waits() -> None:
    inbox = Inbox()
    taker = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    await inbox.put(b"x")
    assert await taker == b"x"


async def test_end_wakes_the_taker() -> None:
    inbox = Inbox()
    taker = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    inbox.end()
    assert await taker is None


async def test_full_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.inbox.STALL_S", 0.01)
    inbox = await filled()
    assert not await inbox.put(b"too many")
    assert await inbox.take() == b"\0"
    assert await inbox.put(b"now there is room")


async def test_full_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ttrpc.inbox.STALL_S", 0.01)
    inbox = Inbox()
    assert await inbox.put(bytes(MAX_BYTES - 1))
    assert await inbox.put(b"x")
    assert not await inbox.put(b"x")


async def test_putter_waits_for_the_taker() -> None:
    inbox = await filled()
    putter = asyncio.create_task(inbox.put(b"last"))
    await asyncio.sleep(0)
    assert not putter.done()
    await inbox.take()
    assert await putter
    assert [await inbox.take() for _ in range(MAX_MESSAGES)][-1] == b"last"


async def test_end_frees_the_putter() -> None:
    inbox = await filled()
    putter = asyncio.create_task(inbox.put(b"never taken"))
    await asyncio.sleep(0)
    inbox.drop(GONE)
    assert await putter
