"""Starts a program with posix_spawn: no fork of a process with threads, no subprocess module to import."""

import os
import signal
from collections.abc import Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Python ignores SIGPIPE and SIGXFSZ, and vminitd the rest: a program starts with none of that.
_DEFAULT_SIGNALS = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
)


def spawn(arguments: Sequence[str], *, stdin: int, stdout: int, stderr: int) -> int:
    """Starts `arguments[0]`, a path, in a session of its own, with these three descriptors. Gives its pid.

    Raises OSError if it cannot be started. Python's own descriptors are all closed on exec.
    """
    pass_on = ((stdin, 0), (stdout, 1), (stderr, 2))
    # A source below 3 could be overwritten before it is used.
    lifted = [os.dup(source) if source < 3 else -1 for source, _ in pass_on]
    actions = [
        (os.POSIX_SPAWN_DUP2, copy if copy >= 0 else source, target)
        for (source, target), copy in zip(pass_on, lifted, strict=True)
    ]
    try:
        return os.posix_spawn(
            arguments[0],
            [*arguments],
            {"PATH": PATH},
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        for copy in lifted:
            if copy >= 0:
                os.close(copy)
