"""One shim per container: a lock on its directory, held for as long as the shim lives.

`start` takes the lock and the daemon, its fork, keeps it; so a new shim with an old
one's id waits until that one is really gone, and `delete` does not answer before
(containerd would otherwise attach a new task to a dying shim). flock(2) is bound to
the open file: the kernel drops it with the last process that has it, however that ends.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

LOCK_NAME: Final = "lock"


class ClaimTimeout(Exception):
    """Somebody else still holds the directory; `holder` is its pid, 0 where it is not known."""

    def __init__(self, holder: int) -> None:
        super().__init__(f"held by process {holder}")
        self.holder = holder


def claim(directory: Path, *, deadline_s: float) -> int:
    """Lock `directory`, which must exist, within `deadline_s` seconds; the answer is the lock's fd.

    Raises ClaimTimeout, or FileNotFoundError when the directory is gone. Main thread only:
    it interrupts a blocking flock(2) by SIGALRM rather than trying again and again.
    """
    path = directory / LOCK_NAME
    with _alarm(deadline_s):
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
            except TimeoutError:
                holder = os.pread(fd, 20, 0)
                os.close(fd)
                raise ClaimTimeout(int(holder) if holder.strip().isdigit() else 0) from None
            if _is(fd, path):
                return fd
            os.close(fd)  # removed by the one who had it, after we had opened it


def sign(lock_fd: int, pid: int) -> None:
    """Write who holds the lock into it, for ClaimTimeout."""
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, str(pid).encode(), 0)


def _is(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


@contextlib.contextmanager
def _alarm(deadline_s: float) -> Iterator[None]:
    """TimeoutError in the main thread after `deadline_s` seconds."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, deadline_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
