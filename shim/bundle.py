"""What `start` leaves in the bundle, containerd's directory for one container.

qemubox     a link to the container's directory under the runtime directory: `delete` must find it
            whatever has become of the configuration since, and without reading that at all
shim.pid    the daemon's process id
address     where it listens; containerd 1.6 finds it there after a restart
"""

from __future__ import annotations

import os

_LINK = "qemubox"
_PID = "shim.pid"
_ADDRESS = "address"


def leave_link(bundle: str, directory: str) -> None:
    """Name the container's directory, which need not exist yet."""
    path = os.path.join(bundle, _LINK)
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(directory, path)


def linked(bundle: str) -> str | None:
    """What `leave_link` has named; None where no `start` came that far."""
    try:
        return os.readlink(os.path.join(bundle, _LINK))
    except (FileNotFoundError, NotADirectoryError):
        return None


def leave_address(bundle: str, address: str) -> None:
    """Write down where the daemon listens."""
    _write(os.path.join(bundle, _ADDRESS), address)


def leave_pid(bundle: str, pid: int) -> None:
    """Write down who the daemon is."""
    _write(os.path.join(bundle, _PID), str(pid))


def shim_pid(bundle: str) -> int:
    """What `leave_pid` has written; 0 where it has not."""
    try:
        with open(os.path.join(bundle, _PID), "rb") as file:
            text = file.read(20)
    except OSError:
        return 0
    return int(text) if text.isdigit() else 0


def _write(path: str, text: str) -> None:
    with open(path, "wb") as file:
        file.write(os.fsencode(text))
