"""The end of the machine. QEMU runs with -no-reboot, so that every way out of the guest ends QEMU too."""

import os

from vminitd import log
from vminitd.libc import RB_AUTOBOOT, RB_POWER_OFF, reboot


def off() -> None:
    """Writes dirty data back and powers off; does not return."""
    os.sync()
    reboot(RB_POWER_OFF)
    # A kernel without ACPI's power-off halts instead of returning; a reset is the other way out.
    reboot(RB_AUTOBOOT)


def off_after(error: BaseException) -> None:
    """Powers off because of an error in vminitd itself; its place goes to the console first."""
    log.failure("vminitd failed, powering off", error)
    off()
