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
    log.error("vminitd failed, powering off", error=f"{type(error).__name__}: {error}")
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        log.error("at", file=code.co_filename, line=trace.tb_lineno, function=code.co_name)
        trace = trace.tb_next
    off()
