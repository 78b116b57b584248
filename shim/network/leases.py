"""Leases of CNI's host-local plugin that say of nobody whose they are.

host-local keeps a file for each address in DATADIR/NETWORK, which says whose it is, and has that directory locked as
long as it runs (plugins/ipam/host-local/backend/disk). The file is made first and written then, and nothing waits for
the disk: a plugin that is killed in between, or a host that loses power some seconds later, leaves an empty one. No DEL
finds it, and the address is never given out again.
"""

import fcntl
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cni import NetworkList

_TYPE: Final = "host-local"
_DATA_DIR: Final = "/var/lib/cni/networks"
_LOCK_NAME: Final = "lock"


def empty(network: NetworkList) -> list[Path]:
    """The empty leases of a network, by name; none while a plugin is at work there. Raises OSError."""
    return [path for directory in _directories(network) for path in _empty(directory, remove=False)]


def remove_empty(network: NetworkList) -> list[Path]:
    """Remove them; those that were removed. Raises OSError."""
    return [path for directory in _directories(network) for path in _empty(directory, remove=True)]


def _directories(network: NetworkList) -> Iterator[Path]:
    for plugin in network.plugins:
        ipam = plugin.conf.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == _TYPE:
            data_dir = ipam.get("dataDir")
            yield Path(data_dir if isinstance(data_dir, str) and data_dir else _DATA_DIR, network.name)


def _empty(directory: Path, *, remove: bool) -> list[Path]:
    with _locked(directory) as is_ours:
        if not is_ours:
            return []
        found = [path for path in sorted(directory.iterdir()) if _is_address(path.name) and path.stat().st_size == 0]
        for path in found if remove else ():
            path.unlink()
        return found


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """host-local's own lock, if it is free, and has ever been there."""
    try:
        fd = os.open(directory / _LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
