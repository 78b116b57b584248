"""SIGTERM as ^C, for commands that have something to undo: as systemd, timeout(1) or another program ends them."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def told_to_end_as_by_ctrl_c() -> Iterator[None]:
    """While in here. Main thread only."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """What SIGINT does now: while asyncio's loop runs, that cancels its main task, which undoes things one by one.

    Raised through the loop, all tasks are cancelled at once, those that a machine's end is waited for by, too.
    """
    handler = signal.getsignal(signal.SIGINT)
    (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)
