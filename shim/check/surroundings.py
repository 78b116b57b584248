"""What else a host is like: control groups, security modules, its clock, its memory."""

import os
import re
import time
from typing import Final

from shim.check.host import Host
from shim.check.line import Report

_MIB: Final = 1024  # in /proc/meminfo's kB


async def look(host: Host, report: Report) -> None:
    """See the module."""
    _control_groups(host, report)
    _security_modules(host, report)
    _tracing(host, report)
    _clock(host, report, time.time())
    _memory(host, report)


def _control_groups(host: Host, report: Report) -> None:
    kinds = {fields[2] for fields in _mounts(host) if fields[1].startswith("/sys/fs/cgroup")}
    what = "control groups"
    if "cgroup2" in kinds and "cgroup" not in kinds:
        report.ok(what, "version 2")
    elif kinds & {"cgroup", "cgroup2"}:
        report.ok(what, "version 1, or both; containers have version 2 in their machines either way")
    else:
        report.warning(
            what,
            "none are mounted in /sys/fs/cgroup: containerd may refuse to start containers",
            "mount -t cgroup2 none /sys/fs/cgroup",
        )


def _mounts(host: Host) -> list[list[str]]:
    return [fields for line in (host.text("/proc/self/mounts") or "").splitlines() if len(fields := line.split()) > 2]


def _security_modules(host: Host, report: Report) -> None:
    modules = (host.text("/sys/kernel/security/lsm") or "").strip().split(",")
    enforce = host.number("/sys/fs/selinux/enforce")
    if enforce == 1:
        report.warning(
            "SELinux",
            'enforces a policy, of which qemubox brings no part: what it denies looks like "Permission denied"',
            "after a failure: ausearch -m AVC -ts recent",
        )
    elif enforce is not None:
        report.ok("SELinux", "permissive")
    armour = (host.text("/sys/module/apparmor/parameters/enabled") or "").strip() == "Y"
    # Without a security module that knows of it, to read it is an error.
    confined = (host.text("/proc/self/attr/current") or "").strip("\0\n ") if armour else ""
    if confined and not confined.startswith("unconfined"):
        report.warning(
            "AppArmor", f"confines this command: {confined}", "run qemubox check, and containerd, unconfined"
        )
    elif armour:
        report.ok("AppArmor", "on; it confines neither QEMU nor the shim unless somebody has written a profile")
    if enforce is None and not armour:
        report.ok("security modules", f"neither SELinux nor AppArmor ({', '.join(filter(None, modules)) or 'none'})")


def _tracing(host: Host, report: Report) -> None:
    """Where all QEMUs are one user's (docs/decisions/0039), only a kernel's rule keeps one from reading another."""
    if host.config.runtime.user_ids != "one":
        report.ok("user ids", "each machine's QEMU has one of its own")
        return
    scope = host.number("/proc/sys/kernel/yama/ptrace_scope")
    what = "kernel.yama.ptrace_scope"
    if scope:
        report.ok(what, f"{scope}: a QEMU that its guest has taken over cannot read the others")
        return
    report.warning(
        what,
        f"{'not there' if scope is None else scope}: a QEMU that its guest has taken over could read the others",
        f'set runtime.user_ids = "own"{f", or sysctl -w {what}=1" if scope == 0 else ""}',
    )


def _clock(host: Host, report: Report, now: float) -> None:
    """The guest's clock is set to the host's; certificates and leases go by it."""
    installed = os.stat(__file__).st_mtime
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    source = (host.text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or "unknown").strip()
    if now < installed - 86400:
        report.warning("clock", f"{shown}: before these files were written", "timedatectl set-ntp true, or date -s")
    elif source in ("hpet", "acpi_pm", "jiffies", "refined-jiffies"):
        report.warning(
            "clock", f"{shown}, from {source}: reading it is slow, in every machine", "look for tsc in dmesg"
        )
    else:
        report.ok("clock", f"{shown}, from {source}")


def _memory(host: Host, report: Report) -> None:
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB", host.text("/proc/meminfo") or "", re.MULTILINE))
    vm = host.config.vm
    need = vm.base_memory_mib + vm.default_memory_mib
    if "MemAvailable" not in found:
        report.warning("memory", "/proc/meminfo says nothing of it", "look at /proc/meminfo")
        return
    available, total = int(found["MemAvailable"]) // _MIB, int(found["MemTotal"]) // _MIB
    words = f"{available} MiB of {total} MiB available; a container without limits takes up to {need} MiB"
    if available < vm.base_memory_mib:
        report.failure("memory", f"{words}: not one machine fits", "end something, or add memory")
    elif available < need:
        report.warning("memory", words, "set limits, or lower vm.default_memory_mib")
    else:
        report.ok("memory", words)
    if host.number("/proc/sys/vm/overcommit_memory") == 2:
        report.warning(
            "vm.overcommit_memory",
            "2: a machine's whole memory counts when it starts, used or not",
            "sysctl -w vm.overcommit_memory=0",
        )
