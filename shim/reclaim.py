"""Undoes what a journal names: the one way by which anything is cleaned up.

Create's rollback, Delete and the `delete` command all end here, so the path that runs
after a crash is the one that runs every day. Import-light: `delete` is paid once per
container. Each step is idempotent, and one that fails does not stop the others.
"""

from __future__ import annotations

import errno
import os
import time

from shim.claim import LOCK_NAME
from shim.journal import KINDS, Journal, check

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.journal import Facts

_KILL_DEADLINE_S = 2.0
# A foreign program, which may have something to write yet: to its end by itself, and after SIGTERM.
_CHILD_DEADLINE_S = 1.5
_CHILD_TERM_DEADLINE_S = 0.5
# shim/rootfs/place.py, which is not imported here.
_USED_IMAGE = "writable.ext4"
# umount2(2)
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def reclaim(
    directory: str | os.PathLike[str],
    *,
    keep_directory: bool = False,
    warn: Callable[[str], None] | None = None,
    cni_deadline: float | None = None,
) -> list[str]:
    """Undo everything in the journal of `directory`, last made first, then remove what is in it, and itself.

    Returns what could not be undone, one line each; then the journal stays for the next try.
    `keep_directory` leaves the directory and the lock in it, for a caller who holds that lock and goes on.
    `warn` is told of a poststop hook that failed, which keeps nothing (runtime-spec, lifecycle 13).
    `cni_deadline` is when, by time.monotonic(), CNI plugins that are not done are ended; without it they
    have the time that the configuration gives them. Blocks, and is not for a thread with an event loop.
    """
    problems: list[str] = []
    entries = Journal(directory).entries()
    # Once the machine has gone, which was made before them: a qdisc that leads to a TAP is somebody's who lives.
    qdiscs = [entry for entry in entries if entry["kind"] == "ingress"]
    # Hooks last, in their order: they run when the container is no more.
    hooks = [entry for entry in entries if entry["kind"] == "poststop"]
    others = [entry for entry in entries if entry["kind"] not in ("ingress", "poststop")]
    for entry in [*reversed(others), *qdiscs, *hooks]:
        kind = str(entry["kind"])
        try:
            check(kind, entry)
            if kind == "poststop":
                _run_hook(entry, warn)
            elif kind == "cni":
                _detach(entry, cni_deadline)
            else:
                _UNDO[kind](entry)
        except ValueError as error:
            problems.append(f"journal of {directory}: {error}")
        except OSError as error:
            problems.append(f"{kind} {entry.get(KINDS[kind])}: {error.strerror or error}")
    if not problems:
        try:
            _empty(os.fspath(directory), keep_directory=keep_directory)
        except OSError as error:
            problems.append(f"directory {directory}: {error.strerror or error}")
    return problems


def _empty(directory: str, *, keep_directory: bool) -> None:
    """Remove all but the lock; then the lock, then the directory.

    In this order: the next shim of the same container may come at any moment, and must find
    either a lock that is held or a directory that is its own alone.
    """
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        if name != LOCK_NAME:
            remove(os.path.join(directory, name))
    if keep_directory:
        return
    remove(os.path.join(directory, LOCK_NAME))
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:  # the next shim has made its lock in it
            raise


def _kill_processes(entry: Facts) -> None:
    """Kill every process whose command line holds the marker, and wait until all are gone."""
    marker = str(entry["marker"]).encode()
    deadline = time.monotonic() + _KILL_DEADLINE_S
    pidfds = [fd for pid in _processes_with(marker) if (fd := open_marked(pid, marker)) is not None]
    try:
        for fd in pidfds:
            _send_kill(fd)
        for fd in pidfds:
            _wait_gone(fd, deadline)
    finally:
        for fd in pidfds:
            os.close(fd)


def _processes_with(marker: bytes) -> list[int]:
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit() and int(name) != os.getpid() and marker in command_line(int(name))
    ]


def command_line(pid: int) -> bytes:
    """The command line of a process, its words ended by NUL; empty where there is no such process any more."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:  # it ended while we looked
        return b""


def open_marked(pid: int, marker: bytes) -> int | None:
    """A pidfd of the process, if it is one whose command line holds the marker."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    if marker in command_line(pid):
        return fd
    os.close(fd)  # another process has come by the number since
    return None


def _send_kill(pidfd: int) -> None:
    import signal

    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return


def _wait_gone(pidfd: int, deadline: float) -> None:
    """A pidfd turns readable when its process has ended (pidfd_open(2))."""
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError(errno.ETIMEDOUT, f"still alive {_KILL_DEADLINE_S} s after SIGKILL")


def record_child(journal: Journal, pid: int) -> None:
    """Write down a process as one to be waited for (`child`). Raises OSError."""
    journal.record("child", marker=f"{pid} {start_time(pid)}")


def start_time(pid: int) -> int:
    """When a process started, in ticks since the boot (proc_pid_stat(5), field 22); -1 where there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b") ")[2].split()[19])
    except OSError:
        return -1


def _end_child(entry: Facts) -> None:
    """Let it end by itself, since what it waited for from us will not come; then make it."""
    import select
    import signal

    pid, started = map(int, str(entry["marker"]).split())
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    try:
        if start_time(pid) != started or poller.poll(_CHILD_DEADLINE_S * 1000):
            return
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if poller.poll(_CHILD_TERM_DEADLINE_S * 1000):
            return
        os.killpg(pid, signal.SIGKILL)  # it leads a group of its own, and has not been reaped as long as it lives
        _wait_gone(pidfd, time.monotonic() + _KILL_DEADLINE_S)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def _run_hook(entry: Facts, warn: Callable[[str], None] | None) -> None:
    from shim.hooks.poststop import run_left

    if (problem := run_left(str(entry["path"]))) and warn is not None:
        warn(problem)


def _detach(entry: Facts, deadline: float | None) -> None:
    """Have the plugins of a CNI network take back what they have made (DEL), or were making when they were killed."""
    from pathlib import Path

    from shim.network.attached import undo

    undo(Path(str(entry["path"])), None if deadline is None else max(0.0, deadline - time.monotonic()))


def _remove_ingress(entry: Facts) -> None:
    """Of a path that means another namespace by now, the host's or none, since pids are used again, nothing is ours."""
    from shim.errors import SpecError
    from shim.network import netns, tap

    try:
        fd = netns.open_given(str(entry["path"]))
    except SpecError:
        return
    try:
        if entry.get("inode") in (None, os.fstat(fd).st_ino):
            tap.disconnect(fd, str(entry["link"]))
    finally:
        os.close(fd)


def _remove_path(entry: Facts) -> None:
    remove(str(entry["path"]))


def remove(path: str) -> None:
    """Remove a file, or a tree that nothing is mounted in; one that is not there is no error. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        if mounted := mounts_below(path):
            # Removing the tree would reach through the mount and delete what is mounted there.
            raise OSError(errno.EBUSY, f"{mounted[0]} is still mounted")
        fd = os.open(path, _DIRECTORY)
        try:
            _empty_tree(fd)
        finally:
            os.close(fd)
        os.rmdir(path)
    else:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return


def _empty_tree(top: int) -> None:
    """Remove all that is in an open directory, however deep it goes; no link is followed.

    That of the vsock daemon's sockets is its user's, and a QEMU's that a guest has taken over: the depth of a tree
    must end nobody's recursion, or descriptors, as it does shutil.rmtree's. So a directory's own ones are brought to
    the top before it is removed.
    """
    prefix, count = os.urandom(8).hex(), 0
    while names := os.listdir(top):
        for name in names:
            try:
                os.unlink(name, dir_fd=top)
                continue
            except IsADirectoryError:
                fd = os.open(name, _DIRECTORY, dir_fd=top)
            try:
                for below in os.listdir(fd):
                    try:
                        os.unlink(below, dir_fd=fd)
                    except IsADirectoryError:
                        count += 1
                        os.rename(below, f"{prefix}-{count}", src_dir_fd=fd, dst_dir_fd=top)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=top)


def mounts_below(path: str) -> list[str]:
    """Mount points at or below `path` (proc_pid_mountinfo(5): field 5, octal escapes for white space)."""
    prefix = os.path.realpath(path)
    with open("/proc/self/mountinfo", "rb") as file:
        points = [_unescape(line.split(b" ")[4]) for line in file]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]


def _unescape(field: bytes) -> str:
    for escape, byte in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escape, byte)
    return os.fsdecode(field)


def _unmount(entry: Facts) -> None:
    """umount2(2); a path that is no mount point (EINVAL) or not there (ENOENT) is undone already."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(str(entry["path"]))
    while libc.umount2(path, _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0:
        pass  # stacked mounts: once more until nothing is mounted there
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, os.strerror(number))


def _remove_netns(entry: Facts) -> None:
    _unmount(entry)
    remove(str(entry["path"]))


def _remove_draft(entry: Facts) -> None:
    """Remove what a killed maker left unfinished; one that somebody is at work on (flock(2)) is theirs."""
    import fcntl

    path = str(entry["path"])
    lock = f"{path}.lock"
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock goes last: as long as it is there, the next maker waits for it.
        for each in (path, lock):
            if os.path.lexists(each):
                os.unlink(each)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


def _remove_unused_image(entry: Facts) -> None:
    """Remove the place of a writable image that no container has written to (shim/rootfs/place.py).

    One that was written to is kept for the snapshot's next start; one that is locked, and not by us, is somebody's by
    now.
    """
    import fcntl

    path = str(entry["path"])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        if entry.get("pid") != os.getpid():  # a shim that is told to end by a signal plays its own journal
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.lexists(os.path.join(path, _USED_IMAGE)):
            remove(path)
    except BlockingIOError:
        return
    finally:
        os.close(fd)


_UNDO: dict[str, Callable[[Facts], None]] = {
    "process": _kill_processes,
    "child": _end_child,
    "path": _remove_path,
    "mount": _unmount,
    "netns": _remove_netns,
    "draft": _remove_draft,
    "ingress": _remove_ingress,
    "writable": _remove_unused_image,
}
