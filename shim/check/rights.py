"""Who we are, whom machines run as, and on what kind of processor."""

import os
import pwd

from shim.check.host import Host
from shim.check.line import Report


async def look(host: Host, report: Report) -> None:
    """Without root nothing else is looked at (runner.py)."""
    if os.geteuid() != 0:
        report.failure("user", f"this is user {os.geteuid()}, and probes are root's", "sudo qemubox check")
        return
    report.ok("user", "root")
    _unprivileged(host, report)
    machine = os.uname().machine
    if machine == "x86_64":
        report.ok("processor", machine)
    else:
        report.failure("processor", f"{machine}: there are machines for x86_64 alone", "use an x86_64 host")


def _unprivileged(host: Host, report: Report) -> None:
    name = host.config.runtime.user
    what = f"runtime.user = {name!r}"
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        mend = f"useradd --system --user-group --no-create-home --shell /usr/sbin/nologin {name}"
        report.failure(what, "no such user: machines have nobody to run as", mend)
        return
    if user.pw_uid == 0:
        report.failure(what, "it is root: a machine's QEMU must not be", "name an unprivileged user as runtime.user")
    else:
        report.ok(what, f"user {user.pw_uid}, group {user.pw_gid}")
