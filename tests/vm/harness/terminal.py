"""A terminal to run `ctr` on: the test holds the keyboard and the screen."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from harness.deadline import PATIENCE

# Says what it runs on and waits for a line; then the terminal's size, and that line. ctr sends the size once the
# process runs; until then busybox's stty prints none, and succeeds all the same.
SCRIPT: Final = (
    "tty; echo ready; read line; "
    'while size=$(stty size 2>/dev/null); [ -z "$size" ]; do sleep 0.1; done; echo $size; echo got $line; exit 3'
)


@dataclass(frozen=True)
class Terminal:
    """Both ends of one: `ours` is the screen and the keyboard, `theirs` what a program is started on."""

    ours: int
    theirs: int

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self.ours, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Give it another size; whoever is to know of it must be told (SIGWINCH)."""
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, words: str, deadline_s: float, again: Callable[[], None] | None = None) -> str:
        """What the terminal shows up to `words`; fails when they do not come.

        `again` is called at once, and every second in which nothing came: for what may be too early the first time.
        """
        end, seen = time.monotonic() + deadline_s * PATIENCE, ""
        if again is not None:
            again()
        while words not in seen:
            left_s = max(0.0, end - time.monotonic())
            readable, _, _ = select.select([self.ours], [], [], left_s if again is None else min(1.0, left_s))
            assert readable or left_s > 0, f"not within {deadline_s * PATIENCE:g} s: {words!r} in {seen!r}"
            if readable:
                with contextlib.suppress(BlockingIOError):
                    seen += os.read(self.ours, 4096).decode(errors="replace")
            elif again is not None:
                again()
        return seen


@contextlib.contextmanager
def terminal(rows: int, columns: int) -> Iterator[Terminal]:
    """A terminal of that size."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        yield Terminal(ours, theirs)
    finally:
        os.close(ours)
        os.close(theirs)
