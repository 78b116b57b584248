"""One shim per container: a lock on its directory, held for as long as the shim lives.

`start` takes the lock and the daemon, its fork, keeps it; so a new shim with an old
one's id waits until that one is really gone, and `delete` kills none but the one that
holds it. flock(2) is bound to the open file: the kernel drops it with the last process
that has it, however that ends. The file is removed with the directory, by its holder
and as the last thing in it, so whoever gets the lock of a removed file looks again.
"""

from __future__ import annotations

import fcntl
import os
import time

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

LOCK_NAME = "lock"
# Others may pass, as QEMU's user must on the way to the vsock daemon's sockets; only root sees what there is.
_DIRECTORY_MODE = 0o711
# Once the deadline is over the alarm goes on ringing at this interval.
_AGAIN_S = 0.05


def make_directory(path: str | os.PathLike[str]) -> None:
    """Make a directory of ours, and each above it that is missing; their mode is the same with every umask.

    os.makedirs has its mode for the last one alone. Raises OSError; one that is there is left as it is.
    """
    try:
        os.mkdir(path, _DIRECTORY_MODE)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(os.path.dirname(path))
        make_directory(path)
        return
    os.chmod(path, _DIRECTORY_MODE)


class ClaimTimeout(Exception):
    """Somebody else still holds the directory; `holder` is its pid, 0 where it is not known."""

    def __init__(self, holder: int) -> None:
        super().__init__(f"held by process {holder}")
        self.holder = holder


def claim(directory: str | os.PathLike[str], *, deadline_s: float) -> int:
    """Lock `directory`, which must exist, within `deadline_s` seconds, in our name; the answer is the lock's fd.

    Raises ClaimTimeout, or FileNotFoundError when the directory is gone. Main thread only:
    it interrupts a blocking flock(2) by SIGALRM rather than trying again and again.
    """
    path = os.path.join(directory, LOCK_NAME)
    deadline = time.monotonic() + deadline_s
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _lock(fd, deadline - time.monotonic()):
                raise ClaimTimeout(_signed(fd))
            if _is(fd, path):
                sign_if_there_is_room(fd)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # removed by the one who had it, after we had opened it


def sign(lock_fd: int, pid: int) -> None:
    """Write who holds the lock into it, for ClaimTimeout."""
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, str(pid).encode(), 0)


def sign_if_there_is_room(fd: int) -> None:
    """`sign` for ourselves. A full file system must keep nobody from cleaning up; ClaimTimeout cannot name us then."""
    try:
        sign(fd, os.getpid())
    except OSError:
        return


def _signed(fd: int) -> int:
    text = os.pread(fd, 20, 0)
    return int(text) if text.isdigit() else 0


def _is(fd: int, path: str) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _lock(fd: int, timeout_s: float) -> bool:
    """Whether the lock is ours now, or within `timeout_s` seconds."""
    return _try_lock(fd) or (timeout_s > 0 and _lock_before_alarm(fd, timeout_s))


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_before_alarm(fd: int, timeout_s: float) -> bool:
    import signal

    waiting = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            raise TimeoutError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again and again: the first ring may come between the interpreter's look for signals and the system call.
        signal.setitimer(signal.ITIMER_REAL, timeout_s, _AGAIN_S)
        fcntl.flock(fd, fcntl.LOCK_EX)
        waiting = False
    except TimeoutError:
        return _try_lock(fd)  # it may also have come just after the lock
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return True
