"""`start`: make the shim's socket, fork the daemon, tell containerd where it listens.

The socket is bound and listening before anybody is told of it, so containerd's first
connection waits in its backlog while the daemon is still importing. The daemon is a
fork and never an exec: the interpreter's start is paid once.

The answer: a plain address for containerd 1.6 and 1.7, which know nothing else, JSON
(version 3, ttrpc) where MAX_SHIM_VERSION says that containerd is newer.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shim import wire
from shim.arguments import Arguments
from shim.claim import ClaimTimeout, claim, sign
from shim.identity import DEFAULT_SOCKET_DIR, Identity
from shim.journal import Journal
from shim.reclaim import reclaim

_STDIN_LIMIT: Final = 10 << 20  # containerd's own limit for what it writes (pkg/shim/shim.go)
_OLD_SHIM_DEADLINE_S: Final = 5.0
_BACKLOG: Final = 128


def start(arguments: Arguments) -> int:
    """Start the shim for one container; containerd's working directory for it is the bundle.

    Returns only in the parent, with the exit status. Raises what went wrong, with nothing left behind.
    """
    from shim.config import load

    config = load()
    told = wire.bootstrap_params(_read_stdin(), arguments.container_id, arguments.namespace)
    identity = Identity(arguments.address, arguments.namespace, arguments.container_id)
    socket_path = identity.socket_path((told and told.socket_dir) or DEFAULT_SOCKET_DIR)
    directory = Path(config.runtime.state_dir, "vm", identity.key)
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    lock_fd = _claim(directory, identity)
    try:
        leftovers = reclaim_but_lock(directory)
        if leftovers:
            raise RuntimeError(f"an earlier run of {identity.container_id} left what cannot be removed: {leftovers[0]}")
        listener = _listen(socket_path, Journal(directory))
        pid = os.fork()
    except BaseException:
        reclaim(directory)
        raise
    if pid == 0:
        _become_daemon(arguments, identity, directory, listener, lock_fd)
    sign(lock_fd, pid)
    Path("shim.pid").write_text(str(pid))
    Path("address").write_text(f"unix://{socket_path}")
    sys.stdout.write(answer(socket_path, os.environ))
    sys.stdout.flush()
    return 0


def answer(socket_path: str, environment: Mapping[str, str]) -> str:
    """What `start` prints, without a newline. Pure."""
    address = f"unix://{socket_path}"
    if "MAX_SHIM_VERSION" not in environment:
        return address
    return json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}, separators=(",", ":"))


def reclaim_but_lock(directory: Path) -> list[str]:
    """Play the journal of an earlier run that was killed; the directory and our lock in it stay."""
    from shim.journal import FILE_NAME

    if not (directory / FILE_NAME).exists():
        return []
    problems = reclaim(directory, keep_directory=True)
    if not problems:
        (directory / FILE_NAME).unlink()
    return problems


def _read_stdin() -> bytes:
    """Runtime options or bootstrap parameters; nothing where there is no standard input."""
    try:
        with os.fdopen(os.dup(0), "rb") as stdin:
            return stdin.read(_STDIN_LIMIT)
    except OSError:
        return b""


def _claim(directory: Path, identity: Identity) -> int:
    try:
        return claim(directory, deadline_s=_OLD_SHIM_DEADLINE_S)
    except ClaimTimeout as timeout:
        raise RuntimeError(
            f"a shim for {identity.namespace}/{identity.container_id} is still running (pid {timeout.holder}):"
            " delete its task first"
        ) from None


def _listen(socket_path: str, journal: Journal) -> socket.socket:
    """A listening socket that only root may connect to."""
    Path(socket_path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal.record("path", path=socket_path)
    # Nobody can be listening there: the directory's lock is ours. A file that is there was left by a kill.
    Path(socket_path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    mask = os.umask(0o177)
    try:
        listener.bind(socket_path)
    finally:
        os.umask(mask)
    listener.listen(_BACKLOG)
    return listener


def _become_daemon(
    arguments: Arguments, identity: Identity, directory: Path, listener: socket.socket, lock_fd: int
) -> None:
    """The child: a session of its own, no standard streams, never back into the caller."""
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        from shim.daemon import run

        status = run(arguments, identity, directory, listener, lock_fd)
    finally:
        os._exit(status)
