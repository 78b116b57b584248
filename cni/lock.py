"""The host-wide lock of chains: plugins of different containers change the same bridges, rules and leases.

flock(2) is bound to the open file. Plugins inherit the descriptor, so that the lock outlasts us if we are killed
while one of them runs. Who is done unlocks, for all descriptors: a process that a plugin left behind holds up nobody.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from cni import process
from cni.errors import CniError, LockTimeout

# flock(1) is of util-linux, which every distribution has. It exits with 1 when its time is over.
_FLOCK = "flock"
_TIMEOUT_STATUS = 1
_NOTE_MAX = 512


@asynccontextmanager
async def held(path: Path, *, timeout_s: float, note: str) -> AsyncIterator[int]:
    """Have the lock of the file `path`, which is made if need be, within `timeout_s`; the answer is its descriptor.

    `note` says who has it, in the LockTimeout of others. Raises that, and CniError where it cannot be had at all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CniError(f"the lock of CNI, {path}, cannot be opened: {error.strerror}") from error
    try:
        if not _lock_now(fd):
            await _lock(fd, path, timeout_s)
        _sign(fd, note)
        try:
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _lock_now(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _lock(fd: int, path: Path, timeout_s: float) -> None:
    """A child that shares the open file waits for the lock: it blocks nobody, polls nothing, and can be ended."""
    try:
        ended = await process.run(
            [_FLOCK, "--exclusive", "--timeout", f"{timeout_s:.3f}", str(fd)],
            environ=os.environ,
            stdin=b"",
            timeout_s=timeout_s + 1.0,
            stdout_max=4096,
            stderr_max=4096,
            inherited=(fd,),
        )
    except process.CannotExecute as error:
        raise CniError(f"{_FLOCK}, which waits for the lock of CNI, cannot be executed: {error}") from error
    if ended.status == 0:
        return
    if ended.status == _TIMEOUT_STATUS or ended.overdue:
        holder = os.pread(fd, _NOTE_MAX, 0).decode(errors="replace").strip() or "somebody"
        raise LockTimeout(
            f"the lock of CNI, {path}, was not free within {timeout_s:g} s: {holder} has it",
            hint="see what its plugin is waiting for, and end that",
        )
    words = ended.stderr.decode(errors="replace").strip()
    raise CniError(f"the lock of CNI, {path}, cannot be had: {_FLOCK} ended with {ended.status}: {words}")


def _sign(fd: int, note: str) -> None:
    """Say who has it; a file system that is full must keep nobody from cleaning up."""
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} ({note})\n".encode(errors="replace")[:_NOTE_MAX], 0)
    except OSError:
        return
