"""From a fork of the anchors' source (shim/anchor_process.py) to virtiofsd, with what it is to serve and nothing else.

The fork is process 1 of a PID namespace of its own, so that whatever virtiofsd forks ends with it. It is told what to
serve, goes into mount, IPC and UTS namespaces of its own and puts together there

    /        the host's root file system, read-only and without what is mounted in it: the program and its libraries
    /proc    of its PID namespace
    /sys     the share: a small read-only tmpfs, with each volume bound at its name

and becomes virtiofsd, which makes namespaces once more and keeps only the share for the process that serves. A volume
is a clone of the mount that its source lies in, made by descriptor before the mount namespace is left (open_tree(2)),
detached from the host's from then on, and read-only there where the volume is (mount_setattr(2)). Nothing is ever
mounted in the host's namespace, so there is nothing to undo. A mount namespace that was a plain copy would keep
everything busy that is mounted on the host, as long as the container runs.

Import-light: the source has little in its memory, and this is imported after the fork.
"""

from __future__ import annotations

import os
import socket

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import NoReturn

# The kernel hands over at most 253 descriptors with one message (unix(7), SCM_RIGHTS); two are not volumes.
MOST_VOLUMES = 250
SHARE = "/sys"
# What a volume is, in the letters behind its name.
READ_ONLY, RECURSIVE, FILE, FOLLOWS = b"r", b"s", b"f", b"m"
_MESSAGE_LIMIT = 65536

# x86_64, as the machine.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC = 1, 2, 4, 8
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE, _MS_SLAVE = 2, 4, 8, 0x4000, 1 << 18, 1 << 19
_CLONE_NEWNS, _CLONE_NEWUTS, _CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
_MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def message(program: list[bytes], volumes: list[tuple[bytes, bytes]]) -> bytes:
    """What is sent with the descriptors of a listening socket, standard output and error, and each volume's source.

    `program` is virtiofsd's command line, less the socket; a volume is its name, and letters.
    """
    return b"\0".join([str(len(program)).encode(), *program, *(word for volume in volumes for word in volume)])


def run(libc: ctypes.CDLL, channel: int) -> NoReturn:
    """Wait for the message on `channel`, a connected SOCK_SEQPACKET, and become virtiofsd.

    The channel is closed by that; before it, it tells what is wrong.
    """
    status = 1
    try:
        _check(libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")
        os.set_inheritable(channel, False)
        with socket.socket(fileno=channel) as orders:
            text, given, _flags, _address = socket.recv_fds(orders, _MESSAGE_LIMIT, MOST_VOLUMES + 2)
            if text:
                try:
                    _become(libc, text, given)
                except OSError as error:
                    orders.send(os.fsencode(error.strerror or str(error)))
            else:
                status = 0
    finally:
        os._exit(status)


def _become(libc: ctypes.CDLL, text: bytes, given: list[int]) -> None:
    """Raises OSError; `strerror` says what failed, too."""
    count, *words = text.split(b"\0")
    program, volumes = words[: int(count)], words[int(count) :]
    listener, output, *sources = given
    names, letters = volumes[::2], volumes[1::2]
    for fd in (*given,):
        os.set_inheritable(fd, fd == listener)
    trees = [_volume(libc, fd, how) for fd, how in zip(sources, letters, strict=True)]
    os.setsid()
    _enter_root(libc, program[0])
    _fill_share(libc, [(name, FILE in how, tree) for name, how, tree in zip(names, letters, trees, strict=True)])
    _settle(libc, output)
    os.execve(program[0], [*program, b"--fd=%d" % listener], {b"PATH": b"/usr/sbin:/usr/bin:/sbin:/bin"})


def _volume(libc: ctypes.CDLL, source: int, how: bytes) -> int:
    """A detached clone of what is at the open file `source`.

    What is mounted or unmounted on the host later does not reach it, unless it follows that; never the other way round.
    One that is read-only is so with all that is mounted below it: in the guest that is nothing but a part of it.
    """
    recursive = _AT_RECURSIVE if RECURSIVE in how else 0
    tree = _clone(libc, source, b"", _AT_EMPTY_PATH | recursive)
    attributes = _ATTR_NOSUID | _ATTR_NODEV | _ATTR_NOEXEC | (_ATTR_RDONLY if READ_ONLY in how else 0)
    _set_attributes(libc, tree, attributes, recursive, _MS_SLAVE if FOLLOWS in how else _MS_PRIVATE)
    return tree


def _enter_root(libc: ctypes.CDLL, program: bytes) -> None:
    """Have a root of the host's root file system, and those that the program's and /usr's files are in, read-only."""
    places = list(dict.fromkeys(place for path in (b"/usr", program) for place in _file_systems(path)))
    trees = [_clone(libc, _AT_FDCWD, place, 0) for place in (b"/", *places)]
    for tree in trees:
        _set_attributes(libc, tree, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0)
    _check(libc.unshare(_CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC), "unshare")
    # As in shim/anchor_process.py: what the host unmounts meanwhile is unmounted here, too.
    _check(libc.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None), "mount / slave")
    _move(libc, trees[0], b"/proc")  # any directory will do, until it is the root
    os.fchdir(trees[0])
    # The new root over the old one, then the old one off from below it (pivot_root(2), NOTES).
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")
    for place, tree in zip(places, trees[1:], strict=True):
        _move(libc, tree, place)
    _check(libc.mount(b"proc", b"/proc", b"proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, None), "mount /proc")


def _file_systems(path: bytes) -> list[bytes]:
    """Where on the way to `path` another file system begins, from the top."""
    found, at, device = [], b"", os.stat("/").st_dev
    for name in os.path.realpath(path).strip(b"/").split(b"/"):
        at += b"/" + name
        status = os.stat(at)
        if status.st_dev != device:
            found.append(at)
        device = status.st_dev
    return found


def _fill_share(libc: ctypes.CDLL, volumes: list[tuple[bytes, bool, int]]) -> None:
    share = os.fsencode(SHARE)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(libc.mount(b"volumes", share, b"tmpfs", flags, b"size=64k,mode=755"), "mount the share")
    for name, is_file, tree in volumes:
        place = share + b"/" + name
        if is_file:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
        else:
            os.mkdir(place, 0o555)
        _move(libc, tree, place)
    fd = os.open(share, os.O_PATH | os.O_CLOEXEC)
    _set_attributes(libc, fd, _ATTR_RDONLY, 0)


def _settle(libc: ctypes.CDLL, output: int) -> None:
    """What is ours and not the program's goes: signals, limits, streams, the way to more privileges."""
    import resource
    import signal

    for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it would hold a guest's memory
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    for stream in (1, 2):
        os.dup2(output, stream)


def _clone(libc: ctypes.CDLL, at: int, path: bytes, flags: int) -> int:
    return _check(
        libc.syscall(_SYS_OPEN_TREE, at, path, _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | flags), "clone the mount"
    )


def _set_attributes(
    libc: ctypes.CDLL, tree: int, attributes: int, recursive: int, propagation: int = _MS_PRIVATE
) -> None:
    """mount_setattr(2): struct mount_attr has what is set, what is cleared, the propagation, and a user namespace."""
    import ctypes

    words = (ctypes.c_uint64 * 4)(attributes, 0, propagation, 0)
    size = ctypes.sizeof(words)
    _check(
        libc.syscall(_SYS_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | recursive, ctypes.byref(words), size),
        "change the mount",
    )


def _move(libc: ctypes.CDLL, tree: int, place: bytes) -> None:
    _check(
        libc.syscall(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH),
        f"mount on {os.fsdecode(place)}",
    )


def _check(result: int, call: str) -> int:
    import ctypes

    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result
