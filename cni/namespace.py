"""Whether a path is a network namespace that plugins may be sent into."""

import fcntl
import os
import socket
import threading

from cni.errors import ArgumentError

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h, ioctl_ns(2)


def is_network_namespace(path: str) -> bool:
    """Whether there is a network namespace at `path`; a file that one was mounted on once is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False
    finally:
        os.close(fd)


def check(path: str) -> None:
    """Raise ArgumentError for a path that is no network namespace, and for the one that plugins run in.

    A plugin notices the latter only once it has done its work, and the DEL that follows takes eth0 from the host.
    """
    if not is_network_namespace(path):
        raise ArgumentError(f"{path!r} is no network namespace")
    if is_own(path):
        raise ArgumentError(f"{path!r} is the network namespace that CNI plugins run in: no container can have it")


def is_own(path: str) -> bool:
    """Whether it is the network namespace of this process."""
    try:
        return os.path.samestat(os.stat(path), os.stat("/proc/self/ns/net"))
    except (OSError, ValueError):
        return False


def has_interface(path: str, name: str) -> bool:
    """Whether the network namespace at `path` is there, and an interface of that name in it."""
    if not is_network_namespace(path):
        return False
    found: list[bool] = []
    # setns(2) is for one thread, and this one ends with the question. (os.setns came with Python 3.12.)
    looking = threading.Thread(target=lambda: found.append(_enters(path) and _is_interface(name)))
    looking.start()
    looking.join()
    return found == [True]


def _enters(path: str) -> bool:
    """Put this thread into it, if it is still there."""
    import ctypes  # 4 ms, for a DEL alone

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        entered: int = ctypes.CDLL(None).setns(fd, _CLONE_NEWNET)
    finally:
        os.close(fd)
    return entered == 0


def _is_interface(name: str) -> bool:
    try:
        return socket.if_nametoindex(name) > 0
    except OSError:
        return False
