"""Who answers on the machine's console: nobody, or, where the kernel's command line says so, a prompt (prompt.py).

The console is the serial line that the shim holds the other end of. Whoever may write to it, root on the host, owns the
machine anyway; it is off by default all the same, since a prompt that nobody asked for is one more thing that could be
reached from somewhere else.
"""

import asyncio
import os

from api.link import GUEST_CONSOLE
from vminitd import log
from vminitd.reaper import Reaper
from vminitd.spawn import spawn

_PYTHON = "/usr/bin/python3.13"
_TERMINAL = "/dev/ttyS0"
_AGAIN_S = 1.0
# As /init does: isolated, sys.path is the library and the application.
_PROGRAM = "import sys; sys.path.insert(0, '/usr/lib/qemubox'); from vminitd.prompt import main; main()"


def is_wanted(command_line_path: str = "/proc/cmdline") -> bool:
    """Whether the kernel was started with the word for it."""
    with open(command_line_path) as file:
        return GUEST_CONSOLE in file.read().split()


async def keep_prompt(reaper: Reaper) -> None:
    """Have a prompt on the console, and another one when it has ended. Does not return; a failure ends it, logged."""
    try:
        while True:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                words = [_PYTHON, "-ISB", "-c", _PROGRAM, _TERMINAL]
                pid = spawn(words, stdin=null, stdout=null, stderr=null)
            finally:
                os.close(null)
            log.warning("a prompt is on the console", pid=pid)
            await reaper.expect(pid)
            await asyncio.sleep(_AGAIN_S)
    except OSError as error:
        log.failure("there is no prompt on the console", error)
