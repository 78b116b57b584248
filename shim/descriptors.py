"""Waiting for a file descriptor on the event loop, where there is no stream or socket of asyncio's own for it.

Only one may wait for a descriptor's reading, and one for its writing: a second takes the first one's place.
"""

import asyncio


async def readable(fd: int) -> None:
    """Return when there is something to read from `fd`, or nobody left who could write (poll(2), POLLIN, POLLHUP)."""
    await _ready(fd, for_writing=False)


async def writable(fd: int) -> None:
    """Return when `fd` takes something, or nobody is left who could read it (poll(2), POLLOUT, POLLERR)."""
    await _ready(fd, for_writing=True)


async def _ready(fd: int, *, for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    (loop.add_writer if for_writing else loop.add_reader)(fd, wake)
    try:
        await ready
    finally:
        (loop.remove_writer if for_writing else loop.remove_reader)(fd)
