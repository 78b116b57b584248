"""A person at a terminal: what is typed, what is seen, and how large the window is."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from types import TracebackType
from typing import Final, Self

_END_DEADLINE_S: Final = 30.0
_CHUNK: Final = 65536


class Unseen(Exception):
    """What was waited for has not been seen in time."""


class Terminal:
    """A command of this host with a terminal of ours as its own: `with Terminal(words) as terminal`."""

    def __init__(self, words: list[str], rows: int = 30, columns: int = 100) -> None:
        self._words = words
        self._size = (rows, columns)
        self.seen = ""

    def __enter__(self) -> Self:
        self._fd, theirs = pty.openpty()
        self.resize(*self._size)
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *self._words], stdin=theirs, stdout=theirs, stderr=theirs
            )
        finally:
            os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(_END_DEADLINE_S)

    def resize(self, rows: int, columns: int) -> None:
        """Make the window that large, and have the foreground's processes told (SIGWINCH)."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "_process"):
            os.kill(self._process.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        """Type text; "\\x03" is Ctrl+C."""
        os.write(self._fd, text.encode())

    def expect(self, text: str, deadline_s: float = 60.0) -> str:
        """Wait until `text` is seen; the answer is what came with it, which is then not looked at again."""
        end = time.monotonic() + deadline_s
        while text not in self.seen:
            left = end - time.monotonic()
            ready, _, _ = select.select([self._fd], [], [], max(left, 0))
            if not ready:
                raise Unseen(f"{text!r} is not seen after {deadline_s:g} s; this is: {self.seen[-2000:]!r}")
            try:
                read = os.read(self._fd, _CHUNK)
            except OSError:  # EIO: nobody has the other end any more
                read = b""
            if not read:
                raise Unseen(f"{text!r} is not seen until the end; this is: {self.seen[-2000:]!r}")
            self.seen += read.decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def ends(self, deadline_s: float = 60.0) -> int:
        """Wait for the command's end; the answer is its status."""
        end = time.monotonic() + deadline_s
        while self._process.poll() is None:
            if time.monotonic() > end:
                raise Unseen(f"{self._words[-1]} has not ended after {deadline_s:g} s; seen: {self.seen[-2000:]!r}")
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._fd, _CHUNK).decode(errors="replace")
                except OSError:  # EIO
                    time.sleep(0.05)
        return self._process.wait()
