"""`delete`: what containerd runs whenever the connection to a shim has ended.

Mostly the shim has gone in good order and nothing is left to do. Otherwise (a killed
shim, a host at its limits) it plays the journal backwards: kill QEMU and the helpers,
unmount, remove. Idempotent; standard output carries the serialized DeleteResponse and
nothing else; within containerd's 5 s (io.containerd.timeout.shim.cleanup).
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from shim import wire
from shim.arguments import Arguments
from shim.claim import ClaimTimeout, claim
from shim.identity import Identity
from shim.reclaim import reclaim

# A shim that has answered Shutdown is gone within milliseconds.
_SHIM_DEADLINE_S: Final = 2.0
_KILLED_DEADLINE_S: Final = 1.0
# What the reference shim answers for a container whose end nobody saw: 128 + SIGKILL.
_EXIT_STATUS: Final = 137


def delete(arguments: Arguments) -> int:
    """Remove all that is left of the container; the answer is the exit status."""
    from shim.config import load

    identity = Identity(arguments.address, arguments.namespace, arguments.container_id)
    directory = Path(load().runtime.state_dir, "vm", identity.key)
    problems = _clean(directory)
    if problems:
        os.write(2, f"{identity.container_id}: not everything could be removed: {'; '.join(problems)}\n".encode())
        return 1
    sys.stdout.buffer.write(wire.delete_response(pid=0, exit_status=_EXIT_STATUS, exited_at_ns=time.time_ns()))
    return 0


def _clean(directory: Path) -> list[str]:
    try:
        try:
            claim(directory, deadline_s=_SHIM_DEADLINE_S)
        except ClaimTimeout as timeout:
            _kill(timeout.holder)
            claim(directory, deadline_s=_KILLED_DEADLINE_S)
    except FileNotFoundError:
        return []  # the shim has removed everything, its directory last
    except ClaimTimeout as timeout:
        return [f"shim {timeout.holder} does not die"]
    return reclaim(directory)


def _kill(pid: int) -> None:
    """A shim that neither answers containerd nor ends. It holds the lock, so the pid in it is its own."""
    if pid > 0:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
