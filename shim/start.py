"""`start`: have the shim made that containerd asks for.

The service makes it (shim/warm/), which takes `start` little more than an interpreter's
start. Without the service `start` makes it itself, by a fork of its own (shim/launch.py).
"""

from __future__ import annotations

import os

from shim.warm.ask import Unavailable, ask

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.arguments import Arguments

_STDIN_LIMIT = 10 << 20  # containerd's own limit for what it writes (pkg/shim/shim.go)


def start(arguments: Arguments, words: Sequence[str]) -> int:
    """Start the shim for one container; containerd's working directory for it is the bundle.

    `words` is the command line that `arguments` were read from. Returns the exit status, in
    no other process than the caller's. Raises what went wrong, with nothing left behind.
    """
    stdin = _read_stdin()
    try:
        ask(words, stdin)
    except Unavailable as reason:
        from shim.launch import launch

        launch(arguments, stdin, why=str(reason), answered=reason.answered)
    return 0


def _read_stdin() -> bytes:
    """Runtime options or bootstrap parameters; nothing where there is no standard input."""
    try:
        with os.fdopen(os.dup(0), "rb") as stdin:
            return stdin.read(_STDIN_LIMIT)
    except OSError:
        return b""
