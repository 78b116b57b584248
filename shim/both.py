"""Two things at once, of which one may fail."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_First = TypeVar("_First")
_Second = TypeVar("_Second")


async def both(
    first: Coroutine[object, object, _First], second: Coroutine[object, object, _Second], *, last_words_s: float = 0
) -> tuple[_First, _Second]:
    """Do both at once, and answer with both results. Where one fails the other is cancelled and not left behind.

    Where the second fails, the first has `last_words_s` to say why: where both fail, its error is the one raised.
    """
    one, other = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        await asyncio.wait((one, other), return_when=asyncio.FIRST_EXCEPTION)
        if not one.done():
            await asyncio.wait((one,), timeout=last_words_s)
        if one.done():
            one.result()
        other.result()
        return await one, await other
    finally:
        one.cancel()
        other.cancel()
        await asyncio.gather(one, other, return_exceptions=True)
