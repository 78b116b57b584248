"""Commands in the machine, over one ssh connection that is kept: a command costs a fork of sshd and a shell.

Measured under emulation: 2 s for a connection, 0.2 s for a command over it (2026-11, two busy cores).
"""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CONNECT_DEADLINE_S: Final = 60.0
# ssh's own status, where the connection is what failed.
_SSH_FAILED: Final = 255
# So much of a failed command's output is told.
_TOLD: Final = 6000


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `seconds` are from the call to its end."""

    command: str
    status: int
    stdout: str
    stderr: str
    seconds: float


class CommandFailed(Exception):
    """A command in the machine ended with another status than 0, or not at all in its time."""


class Shell:
    """The way into one machine: `port` of this host's loopback is its sshd's, `key` the private key's file."""

    def __init__(self, port: int, key: Path, control: Path) -> None:
        self._control = control
        self._words = [
            "ssh", "-F", "none", "-p", str(port), "-i", str(key),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "IdentitiesOnly=yes", "-o", "ServerAliveInterval=20", "-o", "ServerAliveCountMax=6",
            "-o", f"ControlPath={control}", "-o", f"ConnectTimeout={_CONNECT_DEADLINE_S:g}",
        ]  # fmt: skip
        self._master: subprocess.Popen[bytes] | None = None

    def words(self, *options: str, command: str) -> list[str]:
        """The command line of this host that runs `command` in the machine."""
        return [*self._words, *options, "root@127.0.0.1", command]

    def open(self, deadline_s: float) -> None:
        """Make the connection that all commands go over. Raises CommandFailed when there is none in time."""
        end = time.monotonic() + deadline_s
        self._master = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self._words, "-M", "-N", "root@127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while not self._control.exists():
            if self._master.poll() is not None:
                _, words = self._master.communicate()
                raise CommandFailed(f"ssh into the machine failed: {words.decode(errors='replace')}")
            if time.monotonic() > end:
                raise CommandFailed(f"no ssh connection into the machine after {deadline_s:g} s")
            time.sleep(0.05)

    def close(self) -> None:
        """Give the connection up."""
        if self._master is not None:
            self._master.kill()
            self._master.communicate()
            self._master = None
        with contextlib.suppress(FileNotFoundError):
            self._control.unlink()

    def run(self, command: str, deadline_s: float, *, check: bool = True) -> Result:
        """Run a shell command. Raises CommandFailed for one that does not end in time and, with `check`, that fails."""
        begun = time.monotonic()
        try:
            done = subprocess.run(
                self.words(command=command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=deadline_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(
                f"not done after {deadline_s:g} s: {command}\n{_text(error.stdout)}\n{_text(error.stderr)}"
            ) from None
        result = Result(command, done.returncode, done.stdout, done.stderr, time.monotonic() - begun)
        if check and result.status != 0:
            what = "the connection failed under" if result.status == _SSH_FAILED else f"status {result.status} of"
            raise CommandFailed(f"{what}: {command}\n{done.stdout[-_TOLD:]}\n{done.stderr[-_TOLD:]}")
        return result


def _text(output: bytes | str | None) -> str:
    """What a command that was cut off has said."""
    return (output.decode(errors="replace") if isinstance(output, bytes) else output or "")[-_TOLD:]
