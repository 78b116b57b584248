"""What is told of a machine that has failed, as one line."""

from typing import Final

from shim.vm.console import Console
from shim.vm.process import Process

# How much of the console and of QEMU's standard error an error message quotes.
CONSOLE_LINES: Final = 6
STDERR_LINES: Final = 4


def failure(phase: str, reason: str, console: Console, process: Process) -> str:
    """Phase and reason, the console's tail, and, once QEMU has ended, its last words."""
    parts = [f"the virtual machine failed while {phase}: {reason}"]
    if printed := console.tail(CONSOLE_LINES):
        parts.append("console: " + " | ".join(printed))
    if process.exited.done() and process.stderr:
        parts.append("its words: " + " | ".join(process.stderr.splitlines()[-STDERR_LINES:]))
    return "; ".join(parts)
