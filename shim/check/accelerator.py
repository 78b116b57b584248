"""The accelerator: chosen as the shim chooses it, anew, and then a machine booted with it to where vminitd waits.

What shims remember of this boot of the host is not asked: a check is made because something may have changed.
"""

import logging
import re
import sys
import time
from pathlib import Path
from typing import Final, cast

import structlog

from shim import hypervisor
from shim.check.host import Host
from shim.check.line import Report
from shim.check.module import Module, module
from shim.errors import QemuboxError
from shim.host import bounds
from shim.hypervisor import Hypervisor
from shim.log import Logger
from shim.template.build import booted
from shim.vm.accel import KVM_DEVICE, remembered
from shim.vm.machine import Accel

_TCG: Final = "slow, and no security boundary"
_IN_FIRMWARE: Final = (
    "switch virtualization on in the firmware (Intel VT-x, AMD SVM); on a virtual machine, nested virtualization on "
    "its host"
)


async def look(host: Host, report: Report) -> None:
    """See the module."""
    if host.quick:
        _quick(host, report)
        return
    directory, journal = host.place()
    # With a state directory of its own nothing is remembered: neither an old answer is taken, nor ours kept.
    runtime = host.config.runtime._replace(state_dir=str(directory))
    fresh = host.config._replace(runtime=runtime)
    try:
        found = await hypervisor.choose(fresh, directory, bounds(fresh), journal, quiet_log())
    except QemuboxError as error:
        report.failure("accelerator", error.message, error.hint or mend(host))
        return
    host.hypervisor = found
    _tell(host, report, found)
    _compare(host, report, found)
    begin = time.monotonic()
    try:
        async with booted(found.machine, directory, found.credentials, host.config.vm.boot_timeout_s):
            took = time.monotonic() - begin
    except QemuboxError as error:
        report.failure("boot", error.message, error.hint or f"by hand: {found.machine.repeat_command()}")
    else:
        report.ok("boot", f"the guest was up in {took:.1f} s with {found.machine.accel}")


def _tell(host: Host, report: Report, found: Hypervisor) -> None:
    if found.machine.accel is Accel.KVM:
        report.ok("accelerator", f"KVM: {found.reason}")
    elif host.config.vm.accel == "tcg":
        report.warning(
            "accelerator", f"TCG, {_TCG}: {found.reason}", 'set vm.accel = "auto", which takes KVM where it works'
        )
    else:
        report.warning("accelerator", f"TCG, {_TCG}: {found.reason}", mend(host))


def _compare(host: Host, report: Report, found: Hypervisor) -> None:
    """With what shims go by until the host's next boot."""
    if host.config.vm.accel != "auto":
        return
    state_dir = Path(host.config.runtime.state_dir)
    known = remembered(found.machine, runtime_dir=state_dir, credentials=found.credentials)
    if known is not None and known.usable != (found.machine.accel is Accel.KVM):
        report.warning(
            "accelerator", f"containers go by what was found before: {known.reason}", f"rm {state_dir}/accel-*.json"
        )


def _quick(host: Host, report: Report) -> None:
    if host.config.vm.accel == "tcg":
        report.warning("accelerator", f"TCG, {_TCG}: the configuration says so", 'set vm.accel = "auto"')
    elif host.path(str(KVM_DEVICE)).exists():
        report.ok("accelerator", f"{KVM_DEVICE} is there; whether it works was not tried (--quick)")
    elif host.config.vm.accel == "kvm" or not host.config.vm.allow_tcg:
        report.failure("accelerator", f"{KVM_DEVICE} is not there, and the configuration allows no TCG", mend(host))
    else:
        report.warning("accelerator", f"TCG, {_TCG}: {KVM_DEVICE} is not there", mend(host))


def mend(host: Host) -> str:
    """What brings KVM, going by what is there."""
    flags = set(re.findall(r"^flags\s*:.*?\b(vmx|svm)\b", host.text("/proc/cpuinfo") or "", re.MULTILINE))
    device = host.path(str(KVM_DEVICE))
    if device.exists():
        found = device.stat()
        if not (found.st_mode & 0o006 == 0o006 or (found.st_mode & 0o060 == 0o060 and found.st_gid != 0)):
            return (
                f"chgrp kvm {KVM_DEVICE} && chmod 660 {KVM_DEVICE} (groupadd --system kvm, if there is no such group)"
            )
        return "look at the reason and at dmesg; on a virtual machine, its host must offer nested virtualization whole"
    if not flags:
        return _IN_FIRMWARE
    name = "kvm_intel" if "vmx" in flags else "kvm_amd"
    return f"modprobe {name}" if module(host, name) is not Module.MISSING else f"use a kernel with {name}"


def quiet_log() -> Logger:
    """Where others say what we say ourselves; nothing of it may get into our output."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return cast("Logger", structlog.get_logger())
