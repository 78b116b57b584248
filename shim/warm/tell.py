"""Tell the service, if one runs, that what it holds for its children may be old: SIGHUP.

Who it is stands in its lock, which it holds as long as it lives (shim/claim.py).
"""

import fcntl
import os
import signal
from pathlib import Path

from shim.claim import LOCK_NAME
from shim.reclaim import command_line
from shim.warm import message


def look_again() -> bool:
    """Have the service look again; whether there is one."""
    path = os.environ.get(message.SOCKET_VARIABLE) or message.SOCKET_PATH
    try:
        fd = os.open(Path(path).with_name(LOCK_NAME), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _signal(os.pread(fd, 20, 0))
    finally:
        os.close(fd)
    return False  # nobody holds it: it was left by one that was killed


def _signal(holder: bytes) -> bool:
    if not holder.isdigit():
        return False
    try:
        pidfd = os.pidfd_open(int(holder))
    except ProcessLookupError:
        return False
    try:
        # The number may be another's by now: the pidfd is of whom the command line is of.
        if b"service" not in command_line(int(holder)).split(b"\0"):
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True
