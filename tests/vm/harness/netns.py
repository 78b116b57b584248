"""Doing something in another network namespace: what is opened there stays there (network_namespaces(7))."""

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

_CLONE_NEWNET: Final = 0x40000000
_T = TypeVar("_T")


def within(netns: Path, work: Callable[[], _T]) -> _T:
    """What `work` answers on a thread that has joined the namespace (setns(2)), and ends with it. Raises OSError."""
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _on_a_thread(lambda libc: libc.setns(fd, _CLONE_NEWNET), work)
    finally:
        os.close(fd)


def apart(work: Callable[[], _T]) -> _T:
    """What `work` answers in a namespace of its own (unshare(2)), which lives as long as a socket or TAP of it."""
    return _on_a_thread(lambda libc: libc.unshare(_CLONE_NEWNET), work)


def _on_a_thread(join: Callable[[ctypes.CDLL], int], work: Callable[[], _T]) -> _T:
    libc = ctypes.CDLL(None, use_errno=True)

    def joined() -> _T:
        if join(libc):
            raise OSError(ctypes.get_errno(), f"no other network namespace: {os.strerror(ctypes.get_errno())}")
        return work()

    # Each pool has a thread of its own: it never does anything in its first namespace again.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(joined).result()
