"""The processes behind a shim's anchors; shim/anchor.py says what anchors are for.

A shim forks one process, the source, before it has an event loop or a thread, and the source
forks an anchor for each order. So no anchor is a fork of a process with threads, which may
hold locks that nobody will ever release, and none is an interpreter's start (40 ms and 5 MiB).
For the same reasons it forks what becomes virtiofsd, where volumes are wanted.

Both show the container's marker as their command line. The source asks the kernel to die with
the shim, and each anchor to die with the source. The source holds nothing of the shim's: not
its lock, nor its sockets. It ends when the other end of its own socket is closed.

An anchor's mount namespace holds one read-only, empty file system and nothing else: a copy of
the host's mounts would keep every one of them busy for as long as the container runs, and what
a client writes through /proc/PID/root must fail, not vanish.

Import-light: where the shim is a fork of `start`, the source is forked before the shim imports
the rest, and so keeps none of that in memory.
"""

from __future__ import annotations

import os
import socket

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes

    from shim.journal import Journal

# What an anchor says of itself on the socket that came with its order: its pid, and that it is in its place.
READY = b"ready\n"
# With the open file of a network namespace that it is to go into: it answers READY once more.
MOVE = b"n"
# In place of a directory's path: what is forked becomes virtiofsd (shim/volumes/launcher.py).
VOLUMES = b"volumes"
NAME = b"qemubox-anchor"  # /proc/PID/comm

_CLONE_NEWNS = 0x00020000
_CLONE_NEWNET = 0x40000000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWPID = 0x20000000
_SYS_CLONE = 56  # x86_64
_MS_REC_SLAVE = 0x4000 | (1 << 19)
_MS_RDONLY_NOSUID_NODEV_NOEXEC = 0x1 | 0x2 | 0x4 | 0x8
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_ORDER_LIMIT = 4096  # a path
_ORDER_FDS = 2


class Source:
    """A running source.

    `orders` takes messages of a directory's path with one end of a socket pair and, for an anchor that is to be in a
    network namespace that exists, an open file of that. VOLUMES in place of the path, with one end of a SOCK_SEQPACKET
    pair, is answered with the pid of what waits at that end.
    """

    def __init__(self, pid: int, orders: socket.socket, marker: str) -> None:
        self.pid = pid
        self.orders = orders
        self.marker = marker

    def end(self) -> None:
        """Kill and reap it, whether it shows its marker by now or not; it is our child."""
        import signal

        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.orders.close()


def fork_source(key: str, journal: Journal) -> Source:
    """Fork the source of anchors of the container `key`; from the main thread of a process that has no other.

    Raises OSError.
    """
    marker = f"qemubox-anchor-{key}"
    journal.record("process", marker=marker)
    orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_source(marker, shim, theirs.fileno())
    theirs.close()
    return Source(pid, orders, marker)


def _run_source(marker: str, shim: int, orders: int) -> None:
    """The source, from its first instruction to its last."""
    status = 1
    try:
        import ctypes
        import gc
        import signal

        gc.disable()  # it would write to every object, and so make every page our own
        libc = ctypes.CDLL(None, use_errno=True)
        _die_with(libc, shim)
        _keep_only(orders)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would be a KeyboardInterrupt
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps (sigaction(2), SA_NOCLDWAIT)
        _obey(libc, socket.socket(fileno=orders), unable=_show(marker))
        status = 0
    finally:
        os._exit(status)


def _show(marker: str) -> str:
    """Show the marker as our command line; the answer is why that is not possible, empty where it is."""
    from shim.title import show

    try:
        show(os.fsencode(marker) + b"\0", b"", NAME)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _keep_only(fd: int) -> None:
    """Have no descriptors but /dev/null as the standard streams, and `fd`, which is above them; nor a directory."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != fd:
            try:
                os.close(number)
            except OSError:  # the one of the listing itself
                continue
    os.chdir("/")


def _obey(libc: ctypes.CDLL, orders: socket.socket, *, unable: str) -> None:
    """Fork an anchor for each order, until the shim has closed its end; where we are `unable`, say why instead."""
    source = os.getpid()
    while True:
        root, given, _flags, _address = socket.recv_fds(orders, _ORDER_LIMIT, _ORDER_FDS)
        if not root:
            return
        answer, *netns = given
        if unable:
            _tell(answer, b"\n" + unable.encode())
        elif root == VOLUMES:
            _fork_launcher(libc, answer, orders)
        elif os.fork() == 0:
            _run_anchor(libc, source, root, answer, netns, orders)
        for fd in given:
            os.close(fd)


def _fork_launcher(libc: ctypes.CDLL, answer: int, orders: socket.socket) -> None:
    """A fork in a PID namespace of its own, whose number there, 1, is of no use to anybody: its number here is told.

    clone(2) and not unshare(2), after which all further forks would be in that namespace. There is one thread.
    """
    import ctypes
    import signal

    nothing = ctypes.c_long(0)
    flags = ctypes.c_long(_CLONE_NEWPID | signal.SIGCHLD)
    pid = libc.syscall(_SYS_CLONE, flags, nothing, nothing, nothing, nothing)
    if pid == 0:
        orders.close()
        from shim.volumes import launcher

        launcher.run(libc, answer)
    number = ctypes.get_errno()
    _tell(answer, b"%d\n" % pid if pid > 0 else b"\n" + os.strerror(number).encode())


def _tell(answer: int, words: bytes) -> None:
    """Whoever asked may have given up: no reason for the source to end, and all anchors with it."""
    try:
        os.write(answer, words)
    except OSError:
        return


def _run_anchor(
    libc: ctypes.CDLL, source: int, root: bytes, answer: int, netns: list[int], orders: socket.socket
) -> None:
    """An anchor, from its first instruction to its last."""
    try:
        orders.close()
        _die_with(libc, source)
        os.write(answer, b"%d\n" % os.getpid())
        _enter_network(libc, netns)
        _settle(libc, root)
        os.write(answer, READY)
        _move(libc, answer)
        while True:
            libc.pause()
    except OSError as error:
        os.write(answer, os.fsencode(error.strerror or str(error)))
    finally:
        os._exit(1)


def _move(libc: ctypes.CDLL, answer: int) -> None:
    """Go into each network namespace that is sent, until the shim closes its end. Raises OSError."""
    with socket.socket(fileno=os.dup(answer)) as orders:
        while True:
            _message, netns, _flags, _address = socket.recv_fds(orders, len(MOVE), 1)
            if not netns:
                break
            _enter_network(libc, netns)
            os.write(answer, READY)
    os.close(answer)


def _enter_network(libc: ctypes.CDLL, netns: list[int]) -> None:
    """Be in the container's network namespace, or in one of our own where there is none. Raises OSError."""
    if not netns:
        _check(libc.unshare(_CLONE_NEWNET), "unshare")
    for fd in netns:
        _check(libc.setns(fd, _CLONE_NEWNET), "join the network namespace")
        os.close(fd)


def _settle(libc: ctypes.CDLL, root: bytes) -> None:
    """Go where there is nothing: namespaces of our own, and an empty root on the directory `root`. Raises OSError."""
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC), "unshare")
    # Not private: what the host unmounts in the moment that we have a copy of it would live on in that, unwritten. The
    # erofs snapshotter reads the file of such a file system at once (mount_namespaces(7), MS_SLAVE).
    _check(libc.mount(None, b"/", None, _MS_REC_SLAVE, None), "mount / slave")
    _check(libc.mount(b"anchor", root, b"tmpfs", _MS_RDONLY_NOSUID_NODEV_NOEXEC, b"size=4k,mode=555"), "mount tmpfs")
    os.chdir(root)
    # The new root over the old one, then the old one off from below it (pivot_root(2), NOTES).
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    os.setsid()


def _die_with(libc: ctypes.CDLL, parent: int) -> None:
    """Ask for SIGKILL when the parent, which was `parent` when it forked us, ends; end at once if it has."""
    import signal

    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def _check(result: int, call: str) -> None:
    import ctypes

    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
