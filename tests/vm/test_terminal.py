"""`ctr run -t`: the container's first process has a terminal of the client's size, and the keyboard reaches it."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import time

from harness.box import Box
from harness.images import BUSYBOX

_DEADLINE_S = 40.0
_ROWS, _COLUMNS = 33, 101


def test_a_terminal_has_the_client_s_size_and_takes_its_keys(box: Box) -> None:
    container = box.new_id()
    # ctr sends the size once the container runs; without one, busybox's stty fails.
    script = "tty; echo ready; read line; until stty size 2>/dev/null; do sleep 0.1; done; echo got $line; exit 3"
    arguments = box.run_arguments(container, ["sh", "-c", script], ["--rm", "-t"], BUSYBOX)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    try:
        with box.containerd.running(arguments, stdin=theirs, stdout=theirs) as ctr:
            os.close(theirs)
            seen = _read_until(ours, "ready")
            assert "/dev/" in seen
            os.write(ours, b"a line\n")
            seen = _read_until(ours, "got a line")
            assert f"{_ROWS} {_COLUMNS}" in seen
            assert ctr.wait(_DEADLINE_S) == 3
    finally:
        os.close(ours)


def _read_until(terminal: int, words: str) -> str:
    """What the terminal shows up to `words`; fails when they do not come."""
    end, seen = time.monotonic() + _DEADLINE_S, ""
    while words not in seen:
        readable, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert readable, f"not within {_DEADLINE_S:g} s: {words!r} in {seen!r}"
        with contextlib.suppress(BlockingIOError):
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
