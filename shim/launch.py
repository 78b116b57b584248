"""Making a shim: claim the container's directory, listen, and be the daemon.

The socket is bound and listening before anybody is told of it, so containerd's first
connection waits in its backlog while the daemon is still getting ready. The daemon is a
fork and never an exec: of the service, which calls the parts below (shim/warm/child.py),
or, by `launch`, of `start`.

The answer: JSON (version 3, ttrpc) for containerd 2.3 and newer, which are known by their bootstrap parameters; a plain
address, which is version 2, for older ones. MAX_SHIM_VERSION does not tell them apart: Debian 13's 1.7 sets it to 2,
as 2.x does, and refuses version 3 ("unsupported shim version").
"""

from __future__ import annotations

import os
import socket

from shim import bundle, log_level, wire
from shim.arguments import Arguments
from shim.claim import ClaimTimeout, claim, make_directory, sign
from shim.identity import DEFAULT_SOCKET_DIR, Identity
from shim.journal import Journal
from shim.reclaim import reclaim

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_OLD_SHIM_DEADLINE_S = 5.0
_BACKLOG = 128
_SOCKET_PATH_LIMIT = 107  # unix(7), without the ending NUL


class Prepared:
    """A shim that is all there but for its process: locked, listening, and named in the bundle."""

    def __init__(
        self,
        identity: Identity,
        directory: str,
        lock_fd: int,
        listener: socket.socket,
        socket_path: str,
        containerd_level: str,
        *,
        newest: bool,
    ) -> None:
        self.identity = identity
        self.directory = directory
        self.lock_fd = lock_fd
        self.listener = listener
        self.socket_path = socket_path
        # How much containerd says, by the names of shim/log_level.py.
        self.containerd_level = containerd_level
        # Whether containerd is one that takes an answer of version 3.
        self.newest = newest

    def sign(self, pid: int) -> None:
        """Write down, in the lock and in the bundle, who the daemon is."""
        sign(self.lock_fd, pid)
        bundle.leave_pid(".", pid)

    def undo(self) -> None:
        """Nobody will ever ask for it: leave nothing."""
        self.listener.close()
        reclaim(self.directory)


def prepare(arguments: Arguments, stdin: bytes, still_wanted: Callable[[], None] = lambda: None) -> Prepared:
    """Make what a shim needs before its process, in the working directory, which is the bundle.

    `still_wanted` is called when the wait for an old shim is over, and raises where the caller
    has given up meanwhile. Raises what went wrong, with nothing left behind.
    """
    from shim.config import load

    state_dir = load().runtime.state_dir
    parameters = wire.bootstrap(stdin, arguments.container_id, arguments.namespace)
    socket_dir, level = parameters or ("", 0)
    identity = Identity(arguments.address, arguments.namespace, arguments.container_id)
    socket_path = identity.socket_path(socket_dir or DEFAULT_SOCKET_DIR)
    directory = os.path.join(state_dir, "vm", identity.key)
    bundle.leave_link(".", directory)
    lock_fd = _claim(directory, identity)
    try:
        still_wanted()
        if leftovers := reclaim(directory, keep_directory=True):
            raise RuntimeError(f"an earlier run of {identity.container_id} left what cannot be removed: {leftovers[0]}")
        listener = _listen(socket_path, Journal(directory))
        bundle.leave_address(".", f"unix://{socket_path}")
    except BaseException:
        reclaim(directory)
        raise
    containerd_level = log_level.of_containerd(level, debug=arguments.debug)
    newest = parameters is not None
    return Prepared(identity, directory, lock_fd, listener, socket_path, containerd_level, newest=newest)


def launch(arguments: Arguments, stdin: bytes, *, why: str, answered: bool) -> None:
    """Make the shim by a fork of this process, and print the answer unless that is done.

    `why` tells the log why it was not made by the service. Raises what went wrong, with nothing left behind.
    """
    prepared = prepare(arguments, stdin)
    try:
        pid = os.fork()
    except BaseException:
        prepared.undo()
        raise
    if pid == 0:
        become_daemon(prepared, why=why)
    try:
        prepared.sign(pid)
        if not answered:
            os.write(1, answer(prepared.socket_path, newest=prepared.newest).encode())
    except BaseException:
        _kill(pid)
        prepared.undo()
        raise


def answer(socket_path: str, *, newest: bool) -> str:
    """What `start` prints, without a newline. Pure."""
    address = f"unix://{socket_path}"
    if not newest:
        return address
    import json

    return json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}, separators=(",", ":"))


def detach() -> None:
    """Be in a session of our own, without standard streams. The second time does no harm."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def become_daemon(prepared: Prepared, *, why: str = "") -> None:
    """Serve, in a process that has no threads and is nobody else's; never back into the caller.

    `why` tells the log why this is no fork of the service; empty where it is one.
    """
    status = 1
    log = os.path.abspath("log")
    try:
        detach()
        # Forked before there is an event loop or a thread, and before most imports where we are a fork of `start`.
        from shim.anchor_process import fork_source

        source = fork_source(prepared.identity.key, Journal(prepared.directory))
        from pathlib import Path

        from shim.daemon import run

        status = run(
            prepared.identity,
            Path(prepared.directory),
            prepared.listener,
            prepared.lock_fd,
            source,
            containerd_level=prepared.containerd_level,
            why=why,
        )
    except BaseException:  # noqa: BLE001 - whatever it is, nobody is above us to hear of it
        _last_words(log)
    finally:
        os._exit(status)


def _claim(directory: str, identity: Identity) -> int:
    while True:
        make_directory(directory)
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


def _last_words(log: str) -> None:
    """Tell containerd's log why there is no daemon, through the FIFO in the bundle; there may be no log of ours yet."""
    import traceback

    fd = os.open(log, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.write(fd, f"the shim cannot run: {traceback.format_exc()}".encode(errors="backslashreplace"))


def _kill(pid: int) -> None:
    import signal

    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
