"""`delete`: what containerd runs whenever the connection to a shim has ended.

Mostly the shim has gone in good order and nothing is left to do. Otherwise (a killed
shim, a host at its limits) it plays the journal backwards: kill QEMU and the helpers,
unmount, remove. Idempotent; standard output carries the serialized DeleteResponse and
nothing else; within containerd's 5 s (io.containerd.timeout.shim.cleanup). It does not
answer before the shim's process is gone. CNI plugins may take longer, or wait for those of
others: then it says so and fails, and a process that it leaves behind goes on. So it does
where containerd has killed us (heir.py).
"""

from __future__ import annotations

import os
import sys
import time

from shim import bundle, wire
from shim.arguments import Arguments
from shim.claim import LOCK_NAME, ClaimTimeout, claim, sign_if_there_is_room
from shim.reclaim import command_line, reclaim, start_time

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.heir import Heir

# A shim that has answered Shutdown is gone within milliseconds.
_SHIM_DEADLINE_S = 2.0
_KILLED_DEADLINE_S = 1.0
# From our process's start to where CNI plugins are no longer waited for. On a busy host our own end takes a second.
_CNI_S = 3.5
# What the reference shim answers for a container whose end nobody saw: 128 + SIGKILL.
_EXIT_STATUS = 137


def delete(arguments: Arguments) -> int:
    """Remove all that is left of the container; the answer is the exit status."""
    cni_deadline = time.monotonic() + _CNI_S - _age_s()
    path = arguments.bundle or "."
    directory = bundle.linked(path) or _directory_by_configuration(arguments)
    problems = _clean(directory, bundle.shim_pid(path), arguments.container_id, cni_deadline)
    if problems:
        text = f"{arguments.container_id}: not everything could be removed: {'; '.join(problems)}\n"
        os.write(2, text.encode(errors="backslashreplace"))
        return 1
    sys.stdout.buffer.write(wire.delete_response(pid=0, exit_status=_EXIT_STATUS, exited_at_ns=time.time_ns()))
    return 0


def _age_s() -> float:
    """How long ago this process was started, importing and all."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")


def _directory_by_configuration(arguments: Arguments) -> str:
    """For someone who cleans up by hand, when the bundle is gone."""
    from shim.config import load
    from shim.identity import Identity

    identity = Identity(arguments.address, arguments.namespace, arguments.container_id)
    return os.path.join(load().runtime.state_dir, "vm", identity.key)


def _clean(directory: str, shim_pid: int, container_id: str, cni_deadline: float) -> list[str]:
    try:
        lock_fd = _take(directory)
    except FileNotFoundError:  # the shim has removed everything, its directory last
        return _await_end(shim_pid, container_id)
    except ClaimTimeout as timeout:
        return [f"shim {timeout.holder} does not die"]
    heir = _heir(directory, lock_fd)
    problems = reclaim(directory, warn=_warn, cni_deadline=cni_deadline)
    if heir is None:
        return problems
    if problems and time.monotonic() >= cni_deadline:
        problems.append(f"process {heir.pid} goes on with it")
    else:
        heir.dismiss()
    return problems


def _heir(directory: str, lock_fd: int) -> Heir | None:
    """Who goes on where containerd kills us; None on a host at its limits, which needs what is given back the more."""
    from shim.heir import Heir

    try:
        return Heir(lambda: _go_on(directory, lock_fd))
    except OSError as error:
        _warn(f"nobody would go on if this process were killed: {error.strerror}")
        return None


def _go_on(directory: str, lock_fd: int) -> None:
    """Reclaim without haste, in the heir: its parent has ended, maybe with nothing left to do.

    The lock is held by whoever has inherited its descriptor; in a directory with another one lives the next shim.
    """
    try:
        is_ours = os.path.samestat(os.fstat(lock_fd), os.stat(os.path.join(directory, LOCK_NAME)))
    except FileNotFoundError:
        return
    if is_ours:
        sign_if_there_is_room(lock_fd)
        reclaim(directory)


def _warn(problem: str) -> None:
    """containerd logs our standard error."""
    os.write(2, f"{problem}\n".encode(errors="backslashreplace"))


def _take(directory: str) -> int:
    """Lock the directory, the answer is the lock's fd; a shim that neither answers containerd nor ends is killed."""
    try:
        return claim(directory, deadline_s=_SHIM_DEADLINE_S)
    except ClaimTimeout as timeout:
        lock_fd = _kill_holder(directory, timeout.holder)
        return claim(directory, deadline_s=_KILLED_DEADLINE_S) if lock_fd is None else lock_fd


def _kill_holder(directory: str, holder: int) -> int | None:
    """Kill the process that holds the lock; the lock's fd where it has let go by itself and the lock is ours."""
    import signal

    try:
        pidfd = os.pidfd_open(holder)
    except (ProcessLookupError, ValueError, OSError):
        return None
    try:
        return claim(directory, deadline_s=0)
    except ClaimTimeout as timeout:
        # Still held, in the same name: so the process behind the pidfd is the holder, and no later one of that number.
        if timeout.holder == holder:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return None
    finally:
        os.close(pidfd)


def _await_end(pid: int, container_id: str) -> list[str]:
    """Wait for the last instructions of a shim that has cleaned up."""
    words = command_line(pid).split(b"\0")
    if b"start" not in words or os.fsencode(container_id) not in words:
        return []  # gone, and its number is another's
    import select

    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return []
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return [] if poller.poll(_SHIM_DEADLINE_S * 1000) else [f"shim {pid} does not end"]
    finally:
        os.close(pidfd)
