"""A real `qemubox service` for the tests: a process of its own at a socket of its own."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.unit.shim.observe import DEADLINE_S, until
from tests.unit.shim.program import Shim

_ROOT = Path(__file__).parents[3]


class WarmService:
    """Started by `start`; what it logs is in `log`."""

    def __init__(self, socket_path: Path, command: tuple[str, ...] = (sys.executable, "-I", "-m", "shim.cli")) -> None:
        self.socket = socket_path
        self.command = command
        self.log = socket_path.parent.with_suffix(".log")
        self.notified = socket_path.parent.with_suffix(".notify")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running service."""
        assert self.process is not None
        return self.process.pid

    def start(self, *, prefix: tuple[str, ...] = ()) -> None:
        """Start it and wait until it serves."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(self.notified))
            ready.settimeout(DEADLINE_S)
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*prefix, *self.command, "service"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={
                        "PATH": os.environ["PATH"],
                        "QEMUBOX_SERVICE": str(self.socket),
                        "NOTIFY_SOCKET": str(self.notified),
                    },
                )
            try:
                assert ready.recv(100) == b"READY=1", self.text()
            finally:
                self.notified.unlink()

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        sock.connect(str(self.socket))
        return sock

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def until_logged(self, words: str) -> None:
        """Return once these words are in the log."""
        until(lambda: words in self.text(), f"the service logs {words!r}")

    def children(self) -> list[int]:
        """Its children, zombies too."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; how it ended."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """For the end of a test, whatever has become of it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def install(prefix: Path) -> tuple[str, ...]:
    """An installation of the checkout's code in `prefix` as install.sh makes it; the command `qemubox` of it."""
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    version = prefix / "lib/qemubox" / tempfile.mktemp(prefix="venv-", dir="")
    packages = version / "lib" / python / "site-packages"
    packages.mkdir(parents=True)
    for name in ("api", "archive", "cni", "netlink", "shim", "ttrpc"):
        shutil.copytree(_ROOT / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    for other in Path(f"{sys.prefix}/lib/{python}/site-packages").iterdir():
        if not (packages / other.name).exists() and other.suffix != ".pth":
            (packages / other.name).symlink_to(other)
    (prefix / "bin").mkdir(exist_ok=True)
    for source, name in (("launcher", "containerd-shim-qemubox-v1"), ("qemubox", "qemubox")):
        shutil.copy(_ROOT / "deploy" / source, prefix / "bin" / name)
        (prefix / "bin" / name).chmod(0o755)
    link = prefix / "lib/qemubox/venv.new"
    link.symlink_to(version.name)
    link.rename(prefix / "lib/qemubox/venv")
    return (str(prefix / "bin/qemubox"),)


def hung_up(sock: socket.socket, timeout_s: float = DEADLINE_S) -> bool:
    """Whether the other end hangs up within `timeout_s`."""
    poller = select.poll()
    poller.register(sock, select.POLLRDHUP)
    return bool(poller.poll(timeout_s * 1000))


def answer_of(shim: Shim) -> bytes:
    """What `start` prints for a containerd that knows version 3."""
    address = f"unix://{shim.socket}"
    return json.dumps({"version": 3, "address": address, "protocol": "ttrpc"}, separators=(",", ":")).encode()


def parent(pid: int) -> int:
    """The process that has forked it, or has adopted it since."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
