"""Where probes make what they need: a directory like a container's, and a network namespace without a name.

The directory has a journal and a lock as every container's has (shim/claim.py, shim/journal.py), under a key that no
container has: after a kill the next check undoes what is in its journal, or `qemubox gc`, whichever comes first.
The namespace is nowhere mounted: the kernel ends it, with all that is in it, when the last descriptor is closed.
"""

import contextlib
import ctypes
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from shim.check.thread import in_thread
from shim.claim import ClaimTimeout, claim, make_directory
from shim.errors import HostError, StateError
from shim.journal import Journal
from shim.reclaim import reclaim

# 24 hex digits, as a container's (shim/identity.py).
KEY: Final = hashlib.sha256(b"qemubox check").hexdigest()[:24]
# Another check, which boots two machines at most.
_CLAIM_S: Final = 30.0
_CLONE_NEWNET: Final = 0x40000000


@contextlib.contextmanager
def directory(state_dir: Path) -> Iterator[tuple[Path, Journal]]:
    """A directory below `state_dir`, alone, empty, and its journal; at the end all is undone.

    Main thread only. Raises StateError where another check is at work, HostError where there can be no directory.
    """
    path = state_dir / "vm" / KEY
    made = [parent for parent in (path.parent, state_dir) if not parent.exists()]
    try:
        make_directory(path)
        lock = claim(path, deadline_s=_CLAIM_S)
    except ClaimTimeout as timeout:
        raise StateError(
            f"another qemubox check (pid {timeout.holder}) does not end within {_CLAIM_S:g} s", hint="end it"
        ) from None
    except OSError as error:
        _remove_empty(made)
        raise HostError(
            f"{path} cannot be made: {error.strerror}", hint=f"look at {state_dir}, which runtime.state_dir names"
        ) from error
    try:
        if problems := reclaim(path, keep_directory=True):
            raise HostError(f"what a killed check has left cannot be undone: {'; '.join(problems)}", hint="qemubox gc")
        yield path, Journal(path)
    finally:
        reclaim(path)
        os.close(lock)
        _remove_empty(made)


def _remove_empty(directories: list[Path]) -> None:
    """Those that we have made, unless somebody has put something into them since."""
    for path in directories:
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.asynccontextmanager
async def network_namespace() -> AsyncIterator[int]:
    """A descriptor of a new network namespace, which ends with it. Raises HostError."""
    try:
        fd = await in_thread(_new_namespace)
    except OSError as error:
        raise HostError(
            f"no network namespace can be made: {error.strerror}",
            hint="this takes a kernel with CONFIG_NET_NS, root, and user.max_net_namespaces above 0",
        ) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _new_namespace() -> int:
    """On a thread that ends after this."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
