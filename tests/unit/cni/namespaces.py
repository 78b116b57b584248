"""Network namespaces that tests make for themselves: one to be the container's, one to be the host's meanwhile."""

import ctypes
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def network_namespace() -> Iterator[str]:
    """The path of a new one."""
    name = f"cnitest-{uuid.uuid4().hex[:12]}"
    ip("netns", "add", name)
    try:
        yield f"/run/netns/{name}"
    finally:
        ip("netns", "del", name)


@contextmanager
def as_host() -> Iterator[None]:
    """This thread, and what it starts, is in a new network namespace, with lo up, in which plugins may do what they do.

    Everything in it goes with it.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_LIBC.unshare(_CLONE_NEWNET))
        try:
            ip("link", "set", "lo", "up")
            yield
        finally:
            _checked(_LIBC.setns(before, _CLONE_NEWNET))
    finally:
        os.close(before)


def ip(*words: str) -> str:
    """What ip(8) prints."""
    return output("ip", *words)


def inside(netns: str, *words: str) -> str:
    """What a program prints in a namespace."""
    return output("ip", "netns", "exec", Path(netns).name, *words)


def output(*words: str) -> str:
    """What a program prints."""
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
