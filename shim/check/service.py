"""The warm parent, `qemubox service`: whether it runs and is of the code that we are.

It is not spoken to: each connection costs it a fork, and a line in its log. Who it is stands in its lock, that it
listens in /proc/net/unix, and of which installation it is in its memory's map: it has the extension modules of its
Python environment there, as install.sh knows, too.
"""

import fcntl
import os
import re
from pathlib import Path
from typing import Final

from shim.check.host import Host
from shim.check.line import Report
from shim.claim import LOCK_NAME
from shim.warm import message
from shim.warm.ask import packages

_COST: Final = "each container takes 100 ms more of CPU and 8 MiB more of memory"
# linux/net.h, __SO_ACCEPTCON
_LISTENS: Final = 0x10000
_SITE: Final = re.compile(r"\S+ \S+ \S+ \S+ \S+ +(/.*?/site-packages)/")


async def look(host: Host, report: Report) -> None:
    """See the module."""
    path = host.environ.get(message.SOCKET_VARIABLE, message.SOCKET_PATH)
    if not path:
        report.ok("qemubox service", f"not asked: {message.SOCKET_VARIABLE} is empty")
        return
    start = "systemctl start qemubox" if host.path("/run/systemd/system").is_dir() else "qemubox service &"
    holder = _holder(host.path(path).with_name(LOCK_NAME))
    if not holder:
        report.warning("qemubox service", f"does not run: {_COST}", start)
        return
    if not _listens(host, path):
        report.warning("qemubox service", f"process {holder} has its lock, and nobody listens at {path}", start)
        return
    _code(host, report, holder)


def _holder(lock: Path) -> int:
    """The process that has it locked; 0 for none."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 20, 0)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return 0


def _listens(host: Host, path: str) -> bool:
    """Fields of /proc/net/unix: number, references, protocol, flags, type, state, inode, path."""
    for line in (host.text("/proc/net/unix") or "").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == path and int(fields[3], 16) & _LISTENS:
            return True
    return False


def _code(host: Host, report: Report, pid: int) -> None:
    restart = "systemctl reload-or-restart qemubox" if host.path("/run/systemd/system").is_dir() else f"kill -HUP {pid}"
    its, ours = _sites(host, str(pid)), _sites(host, "self") | {packages()}
    if its & ours:
        report.ok("qemubox service", f"process {pid}, of this code")
    else:
        theirs = ", ".join(sorted(its)) or "another installation"
        found = f"process {pid} is of {theirs}, and this command of {packages()}: {_COST}"
        report.warning("qemubox service", found, restart)


def _sites(host: Host, pid: str) -> set[str]:
    """Where a process has its extension modules from."""
    return {found[1] for found in _SITE.finditer(host.text(f"/proc/{pid}/maps") or "")}
