"""Hooks that are to run when the container is no more, whoever sees that: Delete, or `delete` after a crash.

Each is a file in the container's directory, in the journal before any hook runs. Whoever runs it
removes the file first: so each runs once, and one that a kill cuts short does not hold up the others.
Import-light.
"""

from __future__ import annotations

import json
import os

from shim.hooks.hook import Hook, HookError, run

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.journal import Journal

# One that has no timeout of its own, after a crash: containerd gives `delete` 5 s, a next start waits longer.
LEFT_LIMIT_S = 60.0


class Left:
    """A hook that is still to run, with all that it needs."""

    def __init__(self, hook: Hook, state: bytes, bundle: str) -> None:
        self.hook = hook
        self.state = state
        self.bundle = bundle

    def run(self, limit_s: float, on_start: Callable[[int], None] = lambda _: None) -> str:
        """Run it; what went wrong, empty where nothing did."""
        try:
            run(self.hook, self.state, directory=self.bundle, limit_s=limit_s, on_start=on_start)
        except HookError as error:
            return f"poststop hook: {error}"
        return ""


def leave(
    directory: str | os.PathLike[str], journal: Journal, hooks: list[Hook], state: bytes, bundle: str
) -> list[str]:
    """Write them down; the files, in the order in which they are to run. Raises OSError."""
    paths = [os.path.join(directory, f"poststop.{number}") for number in range(len(hooks))]
    for path, hook in zip(paths, hooks, strict=True):
        journal.record("poststop", path=path)
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            json.dump({"hook": hook.facts(), "state": state.decode(), "bundle": bundle}, file)
    return paths


def take(path: str) -> Left | None:
    """The hook, which nobody else will get; None where it has been taken, or was never written down whole."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        os.unlink(path)
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(text)
    except ValueError:  # a kill came between: no hook had run yet
        return None
    return Left(Hook(**facts["hook"]), facts["state"].encode(), facts["bundle"])


def run_left(path: str) -> str:
    """Run a hook that was left; what went wrong, empty where nothing did."""
    left = take(path)
    return left.run(LEFT_LIMIT_S) if left else ""
