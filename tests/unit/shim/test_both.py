"""Two things at once: both results, one error, nothing left behind."""

import asyncio

import pytest

from shim.both import both


async def _answer(value: str) -> str:
    await asyncio.sleep(0)
    return value


async def _fail(error: Exception) -> str:
    await asyncio.sleep(0)
    raise error


class _Stuck:
    """Something that never ends by itself."""

    def __init__(self) -> None:
        self.cancelled = False
        self.runs = asyncio.Event()

    async def run(self) -> str:
        self.runs.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return ""


async def test_both_results() -> None:
    assert await both(_answer("a"), _answer("b")) == ("a", "b")


@pytest.mark.parametrize("first", [True, False])
async def test_whichever_fails_the_other_is_cancelled(first: bool) -> None:
    stuck = _Stuck()
    failing, going_on = _fail(ValueError("why")), stuck.run()
    with pytest.raises(ValueError, match="why"):
        await (both(failing, going_on) if first else both(going_on, failing))
    assert stuck.cancelled


async def test_the_first_may_say_why_the_second_has_failed() -> None:
    second_failed = asyncio.Event()

    async def first() -> str:
        await second_failed.wait()
        raise ValueError("the cause")

    async def second() -> str:
        second_failed.set()
        raise OSError("the effect")

    with pytest.raises(ValueError, match="the cause"):
        await both(first(), second(), last_words_s=30)
    second_failed.clear()
    with pytest.raises(OSError, match="the effect"):
        await both(_Stuck().run(), second(), last_words_s=0.01)


async def test_cancelling_it_cancels_both() -> None:
    one, other = _Stuck(), _Stuck()
    task = asyncio.create_task(both(one.run(), other.run()))
    async with asyncio.timeout(20):
        await asyncio.gather(one.runs.wait(), other.runs.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert one.cancelled
    assert other.cancelled
