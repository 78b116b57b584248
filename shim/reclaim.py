"""Undoes what a journal names: the one way by which anything is cleaned up.

Create's rollback, Delete and the `delete` command all end here, so the path that runs
after a crash is the one that runs every day. Import-light: `delete` is paid once per
container. Each step is idempotent, and one that fails does not stop the others.
"""

import ctypes
import errno
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from shim.journal import Facts, Journal

_KILL_DEADLINE_S: Final = 2.0
_MNT_DETACH: Final = 2


def reclaim(directory: Path, *, keep_directory: bool = False) -> list[str]:
    """Undo everything in the journal of `directory`, last made first, then remove the directory.

    Returns what could not be undone, one line each; then the journal stays for the next try.
    `keep_directory` leaves the directory, for one whose lock the caller holds and goes on with.
    """
    problems: list[str] = []
    for entry in reversed(Journal(directory).entries()):
        undo = _UNDO.get(str(entry["kind"]))
        if undo is None:
            problems.append(f"journal of {directory}: unknown kind {entry['kind']!r}")
            continue
        try:
            undo(entry)
        except OSError as error:
            problems.append(f"{entry['kind']} {entry.get('path') or entry.get('marker')}: {error.strerror or error}")
    if not problems and not keep_directory:
        shutil.rmtree(directory, ignore_errors=True)
    return problems


def _kill_processes(entry: Facts) -> None:
    """Kill every process whose command line holds the marker, and wait until all are gone."""
    marker = str(entry["marker"]).encode()
    deadline = time.monotonic() + _KILL_DEADLINE_S
    pidfds = [fd for pid in _processes_with(marker) if (fd := _open_pidfd(pid)) is not None]
    try:
        for fd in pidfds:
            _send_kill(fd)
        for fd in pidfds:
            _wait_gone(fd, deadline)
    finally:
        for fd in pidfds:
            os.close(fd)


def _processes_with(marker: bytes) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            command_line = Path("/proc", name, "cmdline").read_bytes()
        except OSError:  # it ended while we looked
            continue
        if marker in command_line:
            found.append(int(name))
    return found


def _open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _send_kill(pidfd: int) -> None:
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


def _remove_path(entry: Facts) -> None:
    path = Path(str(entry["path"]))
    if path.is_dir() and not path.is_symlink():
        if mounted := _mounts_below(path):
            # Removing the tree would reach through the mount and delete what is mounted there.
            raise OSError(errno.EBUSY, f"{mounted[0]} is still mounted")
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _mounts_below(path: Path) -> list[str]:
    """Mount points at or below `path` (proc_pid_mountinfo(5): field 5, octal escapes for white space)."""
    prefix = os.path.realpath(path)
    points = [
        line.split(" ")[4].encode().decode("unicode_escape")
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    ]
    return [point for point in points if point == prefix or point.startswith(prefix + "/")]


def _unmount(entry: Facts) -> None:
    """umount2(2); a path that is no mount point (EINVAL) or not there (ENOENT) is undone already."""
    libc = ctypes.CDLL(None, use_errno=True)
    while libc.umount2(str(entry["path"]).encode(), _MNT_DETACH) == 0:
        pass  # stacked mounts: once more until nothing is mounted there
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, os.strerror(number))


def _remove_netns(entry: Facts) -> None:
    _unmount(entry)
    Path(str(entry["path"])).unlink(missing_ok=True)


_UNDO: Final[dict[str, Callable[[Facts], None]]] = {
    "process": _kill_processes,
    "path": _remove_path,
    "mount": _unmount,
    "netns": _remove_netns,
}
