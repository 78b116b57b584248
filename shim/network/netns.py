"""Network namespaces: made by us, as `ip netns add` does, or given to the container by its client.

A namespace is an open file of nsfs (namespaces(7)): it exists as long as a process is in it, a file of it is open, or
one is mounted. What is to happen in one happens on a thread of its own, which joins it and ends: no other thread of
the shim is ever anywhere but in the host's.

Import-light: `delete` takes back what was set up in a given one (shim/network/tap.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from netlink import rtnl
from shim.network.rtnetlink import Rtnetlink

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")

# Where `ip netns` looks for them (ip-netns(8)), and what ours are called there, less their container's key.
DIRECTORY = "/run/netns"
PREFIX = "qemubox-"
_CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MS_REC = 0x4000
_MS_SHARED = 1 << 20
_MNT_DETACH = 2
# linux/nsfs.h: _IO(0xb7, 3)
_NS_GET_NSTYPE = 0xB703
_OWN = "/proc/thread-self/ns/net"
_FIRST = "/proc/1/ns/net"
# In every network namespace (net/core/dev.c).
_LOOPBACK = 1
# Others hold the lock of the directory for two system calls.
_LOCK_S = 2.0
_LOCK_AGAIN_S = 0.005


def make(path: Path) -> int:
    """Make a network namespace, mounted on the file `path`, which is made for it, with its loopback interface up.

    Answers an open file of it. Nothing is left where that fails. Blocks. Raises HostError.
    """
    from shim.errors import HostError

    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _share(os.fsencode(path.parent))
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
        try:
            return _on_thread(lambda: _make_here(os.fsencode(path)))
        except BaseException:
            remove(path)
            raise
    except OSError as error:
        raise HostError(f"network namespace {path} cannot be made: {error.strerror or error}") from error


def _make_here(path: bytes) -> int:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    _check(libc.unshare(_CLONE_NEWNET), "unshare")
    with Rtnetlink() as kernel:
        # With that the kernel gives it 127.0.0.1 and ::1.
        kernel.change(rtnl.RTM_NEWLINK, rtnl.link(_LOOPBACK, flags=rtnl.IFF_UP, change=rtnl.IFF_UP))
    fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(libc.mount(os.fsencode(_OWN), path, b"none", _MS_BIND, None), "mount")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _share(directory: bytes) -> None:
    """Make the directory a mount of its own, and shared, as iproute2 does (ip/ipnetns.c, netns_add).

    What is mounted and unmounted in it then is so in other mount namespaces, too, where a namespace would otherwise
    live on. Once on a host; those who come at the same time wait for each other, lest each puts a mount over it.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def shared() -> bool:
        if libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None) == 0:
            return True
        if ctypes.get_errno() != errno.EINVAL:  # EINVAL: it is no mount point
            _check(-1, "mount shared")
        return False

    if shared():
        return
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(lock)
        if not shared():
            _check(libc.mount(directory, directory, b"none", _MS_BIND | _MS_REC, None), "mount")
            _check(libc.mount(b"", directory, b"none", _MS_SHARED | _MS_REC, None), "mount shared")
    finally:
        os.close(lock)


def _lock(fd: int) -> None:
    """Raises TimeoutError where another does not let go."""
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, f"another has its directory locked for {_LOCK_S:g} s") from None
            time.sleep(_LOCK_AGAIN_S)
        else:
            return


def remove(path: Path) -> None:
    """Undo `make`, whole or begun: the namespace ends once nobody is in it. Does nothing where there is nothing.

    Blocks. Raises OSError.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), _MNT_DETACH) != 0 and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        _check(-1, "umount2")
    path.unlink(missing_ok=True)


def open_given(path: str) -> int:
    """An open file of the network namespace at `path`: one that is mounted there, or a /proc/PID/ns/net.

    Blocks. Raises SpecError for what is no network namespace, or the host's: ours, or that of process 1.
    """
    from shim.errors import SpecError

    try:
        fd = _open_nsfs(path)
    except OSError as error:
        raise SpecError(
            f"network namespace {path}: {error.strerror or error}",
            hint="give a path that a network namespace is mounted on, such as those of `ip netns add`, "
            "or the /proc/PID/ns/net of a running process",
        ) from error
    if is_host(fd):
        os.close(fd)
        raise SpecError(
            f"network namespace {path}: it is the host's",
            hint="a container in a virtual machine cannot have the host's network; give it one of its own",
        )
    return fd


def _open_nsfs(path: str) -> int:
    """Raises OSError. Looked at first: to open what is something else may wait, or do something."""
    own = os.stat(_OWN)
    if os.stat(path).st_dev != own.st_dev:
        raise OSError(errno.EINVAL, "it is no network namespace")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if os.fstat(fd).st_dev != own.st_dev or fcntl.ioctl(fd, _NS_GET_NSTYPE) != _CLONE_NEWNET:
            raise OSError(errno.EINVAL, "it is a namespace of another kind than network")
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_host(fd: int) -> bool:
    """Whether it is the namespace that we are in, or process 1 is, where we may look at that."""
    found = os.fstat(fd)
    if os.path.samestat(found, os.stat(_OWN)):
        return True
    try:
        return os.path.samestat(found, os.stat(_FIRST))
    except (PermissionError, FileNotFoundError):  # a /proc that shows each his own, or a kernel that protects it
        return False


def within(fd: int, work: Callable[[], T]) -> T:
    """Have `work` done on a thread that has joined the namespace; answers or raises what it does. Blocks.

    Raises OSError where the namespace cannot be joined.
    """

    def joined() -> T:
        join(fd)
        return work()

    return _on_thread(joined)


def join(fd: int) -> None:
    """Be in the namespace with this thread, for as long as it lives. Raises OSError."""
    import ctypes

    _check(ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET), "setns")


def _on_thread(work: Callable[[], T]) -> T:
    import threading

    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised to who waits
            failed.append(error)

    thread = threading.Thread(target=run, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _check(result: int, call: str) -> None:
    import ctypes

    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
