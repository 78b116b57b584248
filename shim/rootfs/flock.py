"""Locks on files that end with the process holding them, whatever ends it (flock(2)).

A lock belongs to the open file, so it holds as long as any process has that open file:
a program that was given it, or a QEMU that got it as a disk, keeps it locked too.

What is made once by whoever comes first is made under the lock of a file beside it,
which is removed before it is let go. A lock file that nobody has locked was left by a
process that was killed, and so was what it made.
"""

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path


async def exclusive(path: Path, timeout_s: float) -> int:
    """Open `path`, made if missing, alone: a descriptor for reading and writing.

    Waits while another has it, at most `timeout_s` seconds in all; then TimeoutError.
    Raises OSError if it cannot be opened.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if not _try(fd, fcntl.LOCK_EX):
                    await _wait(fd)
                if is_at(fd, path):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # its last holder has removed it while we waited


@contextlib.asynccontextmanager
async def maker(lock: Path, timeout_s: float) -> AsyncIterator[int]:
    """Hold the lock file `lock`, made for this and removed at the end; its descriptor.

    Raises as `exclusive`.
    """
    fd = await exclusive(lock, timeout_s)
    try:
        yield fd
    finally:
        lock.unlink(missing_ok=True)
        os.close(fd)


def try_exclusive(fd: int) -> bool:
    """Lock an open file, unless another has it locked in any way."""
    return _try(fd, fcntl.LOCK_EX)


async def exclusive_soon(fd: int, timeout_s: float) -> bool:
    """Lock an open file against all others once they let go of it, which they have `timeout_s` seconds for."""
    if _try(fd, fcntl.LOCK_EX):
        return True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await _wait(fd)
            return True
    return False


def try_shared(fd: int) -> bool:
    """Lock an open file against exclusive locks, unless another has one."""
    return _try(fd, fcntl.LOCK_SH)


def is_at(fd: int, path: Path) -> bool:
    """Whether the open file is still the one that `path` names."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _try(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _wait(fd: int) -> None:
    """Wait for the exclusive lock in a thread: flock(2) can neither be polled nor timed.

    The thread waits on a duplicate, which is the same open file. When nobody waits for the
    thread any more, its lock ends with its duplicate. It is a daemon, so it holds up no exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    duplicate = os.dup(fd)

    def settle(error: OSError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def wait() -> None:
        failure = None
        try:
            fcntl.flock(duplicate, fcntl.LOCK_EX)
        except OSError as error:
            failure = error
        finally:
            os.close(duplicate)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=wait, name="flock", daemon=True).start()
    await done
