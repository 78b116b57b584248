"""One hook: a program of the host that is told the container's state, and how it ended.

Import-light: `delete` runs hooks after a crash.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# How much of what it says is kept: its end.
_WORDS_LIMIT = 4096
_PIECE = 65536


class HookError(Exception):
    """It could not be run, or failed; the message says which, how, and what it said."""


class Hook:
    """A hook as the specification has it. `timeout_s` is 0 where it has none."""

    def __init__(self, path: str, args: list[str], env: list[str], timeout_s: int) -> None:
        self.path = path
        self.args = args
        self.env = env
        self.timeout_s = timeout_s

    def facts(self) -> dict[str, str | int | list[str]]:
        """What makes it again."""
        return {"path": self.path, "args": self.args, "env": self.env, "timeout_s": self.timeout_s}


def run(
    hook: Hook,
    state: bytes,
    *,
    directory: str,
    limit_s: float,
    on_start: Callable[[int], None] = lambda _: None,
    cancelled: int = -1,
) -> None:
    """Run it to its end in `directory`, with nothing but its own environment. Blocks. Raises HookError.

    `limit_s` is for one that has no timeout. `on_start` gets its pid before it gets the state. It is killed,
    with all of its process group, when its time is over, or once there is something to read in `cancelled`.
    """
    with _Running(hook, directory) as running:
        on_start(running.child.pid)
        why = running.communicate(state, hook.timeout_s or limit_s, cancelled)
        status = running.child.returncode
    words = " | ".join(line for line in running.said.decode(errors="replace").splitlines() if line.strip())
    if why or status != 0:
        how = why or (f"ended with exit status {status}" if status > 0 else f"was killed by signal {-status}")
        raise HookError(f"{hook.path} {how}{': ' if words else ''}{words}")


class _Running:
    """Its process, and our ends of its streams."""

    def __init__(self, hook: Hook, directory: str) -> None:
        self.said = b""
        reader, self._state = os.pipe2(os.O_CLOEXEC)
        self._words, writer = os.pipe2(os.O_CLOEXEC)
        for fd in (self._state, self._words):
            os.set_blocking(fd, False)
        try:
            self.child = subprocess.Popen(
                hook.args,
                executable=hook.path,
                env=dict(entry.partition("=")[::2] for entry in hook.env),
                cwd=directory if os.path.isdir(directory) else "/",
                stdin=reader,
                stdout=writer,
                stderr=writer,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(self._state)
            os.close(self._words)
            raise HookError(f"{hook.path} cannot be run: {getattr(error, 'strerror', error)}") from error
        finally:
            os.close(reader)
            os.close(writer)
        self._pidfd = os.pidfd_open(self.child.pid)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self.child.wait()
        for fd in (self._state, self._words, self._pidfd):
            if fd >= 0:
                os.close(fd)

    def communicate(self, state: bytes, limit_s: float, cancelled: int) -> str:
        """Give it the state and hear it until it ends; why it had to be killed, empty where it had not."""
        poller = select.poll()
        poller.register(self._state, select.POLLOUT)
        poller.register(self._words, select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        if cancelled >= 0:
            poller.register(cancelled, select.POLLIN)
        deadline = time.monotonic() + limit_s
        why = ""
        while True:
            events = dict(poller.poll(max(0.0, deadline - time.monotonic()) * 1000))
            if self._words in events and not self._hear():
                poller.unregister(self._words)
            if self._state in events:
                state = self._tell(state)
                if not state:
                    poller.unregister(self._state)
                    os.close(self._state)
                    self._state = -1
            if self._pidfd in events:  # a child of its own that has our pipe is not waited for
                break
            if cancelled in events or time.monotonic() >= deadline:
                why = "was cancelled" if cancelled in events else f"ran past its timeout of {limit_s:g} s"
                break
        self._kill()
        self.child.wait()
        while self._hear():
            pass
        return why

    def _tell(self, state: bytes) -> bytes:
        """What is still to be written; nothing where nobody reads."""
        try:
            return state[os.write(self._state, state[:_PIECE]) :]
        except BlockingIOError:
            return state
        except BrokenPipeError:
            return b""

    def _hear(self) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(self._words, _PIECE)
        except BlockingIOError:
            return False
        self.said = (self.said + data)[-_WORDS_LIMIT:]
        return bool(data)

    def _kill(self) -> None:
        """Kill it and its group, if it lives; before it is reaped its number is nobody else's."""
        if self.child.returncode is None and not select.select([self._pidfd], [], [], 0)[0]:
            os.killpg(self.child.pid, signal.SIGKILL)
