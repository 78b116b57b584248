"""A corner of the host for one containerd: a mount namespace with a /run of its own, and a network namespace.

Whatever lies under its /run, is mounted in it, is a link or a rule of its network, or descends from its warden is
there because of this one containerd and what it started. So the tests can compare complete listings, and other
containerds on the machine (a developer's, other tests') neither see nor disturb them: a bridge, a rule of iptables or
a setting of the kernel's network is the cell's, and goes with it. Its network has a loopback and no way out. Processes
and everything else are the host's own.
"""

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

_WARDEN = Path(__file__).with_name("warden.py")
_ANSWER_DEADLINE_S = 20.0
_CLOSE_DEADLINE_S = 20.0


class Cell:
    """An open cell. `directory` is on a real disk and holds everything that is not under /run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        command = ["unshare", "--mount", "--net", "--propagation", "private", "--"]
        self._warden = subprocess.Popen(
            [*command, sys.executable, "-I", _WARDEN, directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._answer()

    def __enter__(self) -> "Cell":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The warden's pid: `/proc/PID/root` and `/proc/PID/mountinfo` show the cell from outside."""
        return self._warden.pid

    def path(self, inside: str) -> Path:
        """A path of the cell as it can be opened from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    @property
    def netns(self) -> Path:
        """Its network namespace, as `harness.netns.within` takes it."""
        return Path(f"/proc/{self.pid}/ns/net")

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> int:
        """Start a process in the cell, its output appended to `log`; its pid."""
        order = {"argv": list(argv), "env": dict(env), "log": str(log)}
        assert self._warden.stdin is not None
        self._warden.stdin.write(json.dumps(order).encode() + b"\n")
        return self._answer()

    def inside(self, argv: Sequence[str], directory: Path | None = None) -> list[str]:
        """The command that runs `argv` in the cell's mount and network namespaces, as a child of the caller.

        In its directory, or another one.
        """
        own = f"/proc/{self.pid}/ns"
        where = f"--wdns={directory or self.directory}"
        return ["nsenter", f"--mount={own}/mnt", f"--net={own}/net", where, "--", *argv]

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started in the cell, or by one that was. The warden is not among them."""
        return [process for process in psutil.Process(self.pid).children(recursive=True) if _lives(process)]

    def close(self) -> None:
        """Kill all that is in the cell and take it down. The second call does nothing."""
        assert self._warden.stdin is not None
        assert self._warden.stdout is not None
        self._warden.stdin.close()
        try:
            self._warden.wait(_CLOSE_DEADLINE_S)
        finally:
            self._warden.kill()
            self._warden.wait()
            self._warden.stdout.close()

    def _answer(self) -> int:
        """The warden's next line. Raises RuntimeError when it has ended or does not answer."""
        assert self._warden.stdout is not None
        line = b""
        deadline = time.monotonic() + _ANSWER_DEADLINE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._warden.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise RuntimeError(f"the warden of {self.directory} does not answer")
                data = os.read(self._warden.stdout.fileno(), 4096)
                if not data:
                    raise RuntimeError(f"the warden of {self.directory} ended; are we root, is unshare(1) there?")
                line += data
        return int(json.loads(line)["pid"])


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
