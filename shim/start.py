"""`start`: make the shim's socket, fork the daemon, tell containerd where it listens.

The socket is bound and listening before anybody is told of it, so containerd's first
connection waits in its backlog while the daemon is still importing. The daemon is a
fork and never an exec: the interpreter's start is paid once.

The answer: a plain address for containerd 1.6 and 1.7, which know nothing else, JSON
(version 3, ttrpc) where MAX_SHIM_VERSION says that containerd is newer.
"""

from __future__ import annotations

import os
import socket

from shim import bundle, wire
from shim.arguments import Arguments
from shim.claim import ClaimTimeout, claim, sign
from shim.identity import DEFAULT_SOCKET_DIR, Identity
from shim.journal import Journal
from shim.reclaim import reclaim

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_STDIN_LIMIT = 10 << 20  # containerd's own limit for what it writes (pkg/shim/shim.go)
_OLD_SHIM_DEADLINE_S = 5.0
_BACKLOG = 128
_SOCKET_PATH_LIMIT = 107  # unix(7), without the ending NUL


def start(arguments: Arguments) -> int:
    """Start the shim for one container; containerd's working directory for it is the bundle.

    Returns only in the parent, with the exit status. Raises what went wrong, with nothing left behind.
    """
    from shim.config import load

    state_dir = load().runtime.state_dir
    socket_dir = wire.bootstrap_socket_dir(_read_stdin(), arguments.container_id, arguments.namespace)
    identity = Identity(arguments.address, arguments.namespace, arguments.container_id)
    socket_path = identity.socket_path(socket_dir or DEFAULT_SOCKET_DIR)
    directory = os.path.join(state_dir, "vm", identity.key)
    bundle.leave_link(".", directory)
    lock_fd = _claim(directory, identity)
    try:
        if leftovers := reclaim(directory, keep_directory=True):
            raise RuntimeError(f"an earlier run of {identity.container_id} left what cannot be removed: {leftovers[0]}")
        listener = _listen(socket_path, Journal(directory))
        bundle.leave_address(".", f"unix://{socket_path}")
        pid = os.fork()
    except BaseException:
        reclaim(directory)
        raise
    if pid == 0:
        _become_daemon(arguments, identity, directory, listener, lock_fd)
    try:
        sign(lock_fd, pid)
        bundle.leave_pid(".", pid)
        os.write(1, answer(socket_path, os.environ).encode())
    except BaseException:  # nobody will ever ask for this daemon
        _kill(pid)
        reclaim(directory)
        raise
    return 0


def answer(socket_path: str, environment: Mapping[str, str]) -> str:
    """What `start` prints, without a newline. Pure."""
    address = f"unix://{socket_path}"
    if "MAX_SHIM_VERSION" not in environment:
        return address
    import json

    return json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}, separators=(",", ":"))


def _read_stdin() -> bytes:
    """Runtime options or bootstrap parameters; nothing where there is no standard input."""
    try:
        with os.fdopen(os.dup(0), "rb") as stdin:
            return stdin.read(_STDIN_LIMIT)
    except OSError:
        return b""


def _claim(directory: str, identity: Identity) -> int:
    while True:
        os.makedirs(directory, mode=0o711, exist_ok=True)
        try:
            return claim(directory, deadline_s=_OLD_SHIM_DEADLINE_S)
        except FileNotFoundError:
            continue  # the shim before us has removed the directory, its last act: make it anew
        except ClaimTimeout as timeout:
            raise RuntimeError(
                f"a shim for {identity.namespace}/{identity.container_id} is still running (pid {timeout.holder}):"
                " delete its task first"
            ) from None


def _listen(socket_path: str, journal: Journal) -> socket.socket:
    """A listening socket that only root may connect to."""
    if len(os.fsencode(socket_path)) > _SOCKET_PATH_LIMIT:
        raise RuntimeError(f"{socket_path}: longer than a socket's name may be, {_SOCKET_PATH_LIMIT} bytes")
    os.makedirs(os.path.dirname(socket_path), mode=0o700, exist_ok=True)
    journal.record("path", path=socket_path)
    # Nobody can be listening there: the directory's lock is ours. A file that is there was left by a kill.
    if os.path.lexists(socket_path):
        os.unlink(socket_path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(socket_path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _become_daemon(
    arguments: Arguments, identity: Identity, directory: str, listener: socket.socket, lock_fd: int
) -> None:
    """The child: a session of its own, no standard streams, never back into the caller."""
    status = 1
    log = os.path.abspath("log")
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        from pathlib import Path

        from shim.daemon import run

        status = run(arguments, identity, Path(directory), listener, lock_fd)
    except BaseException:  # noqa: BLE001 - whatever it is, nobody is above us to hear of it
        _last_words(log)
    finally:
        os._exit(status)


def _last_words(log: str) -> None:
    """Tell containerd's log why there is no daemon, through the FIFO in the bundle; there may be no log of ours yet."""
    import traceback

    fd = os.open(log, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(fd, f"the shim cannot run: {traceback.format_exc()}".encode(errors="backslashreplace"))


def _kill(pid: int) -> None:
    import signal

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
