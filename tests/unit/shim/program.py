"""The shim binary as containerd runs it: a process of its own, in a bundle, with a configuration of its own."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from api import bootstrap_pb2, task_pb2
from api.task_ttrpc import TaskStub
from shim.identity import Identity
from tests.unit.shim.observe import until
from ttrpc import Client

ADDRESS = "/run/containerd/containerd.sock"
COMMAND = (sys.executable, "-I", "-m", "shim.entry")


Call = Callable[[Client], Awaitable[task_pb2.ConnectResponse]]


@dataclass(frozen=True)
class Answer:
    """How a run of the binary ended."""

    status: int
    stdout: bytes
    stderr: bytes


class Host:
    """A place for shims: directories, and the bundle of one container after the other."""

    def __init__(self) -> None:
        # Not pytest's own directory: its name is too long for a socket in it.
        self.path = Path(tempfile.mkdtemp(prefix="q", dir="/tmp"))
        self.state = self.path / "state"
        self.sockets = self.path / "s"
        self.config = self.path / "config.toml"
        # Where a service would be asked; most tests are without.
        self.service = self.path / "service" / "service.sock"
        # Stands in every command line, and tells our processes from those of another run of the tests.
        self.containerd = str(self.path / "containerd")
        self.config.write_text(f'[runtime]\nstate_dir = "{self.state}"\n')
        self.shims: list[Shim] = []

    @property
    def unique(self) -> str:
        """A name that no other run of the tests has."""
        return f"qemubox-test-{self.path.name}"

    def shim(self, container_id: str = "c1", namespace: str = "ns") -> "Shim":
        """A container whose shim has not been started."""
        shim = Shim(self, namespace, container_id)
        self.shims.append(shim)
        return shim

    def close(self) -> None:
        """Kill what is left; fail never."""
        for shim in self.shims:
            for pid in shim.daemons():
                os.kill(pid, signal.SIGKILL)
            os.close(shim.log)
        shutil.rmtree(self.path)


class Shim:
    """One container's shim: how containerd starts and deletes it, and what it has on the host."""

    def __init__(self, host: Host, namespace: str, container_id: str) -> None:
        self.host = host
        self.namespace = namespace
        self.container_id = container_id
        self.identity = Identity(ADDRESS, namespace, container_id)
        self.directory = host.state / "vm" / self.identity.key
        self.socket = Path(self.identity.socket_path(str(host.sockets)))
        self.bundle = Path(tempfile.mkdtemp(prefix="bundle", dir=host.path))
        os.mkfifo(self.bundle / "log")
        self.log = os.open(self.bundle / "log", os.O_RDWR | os.O_NONBLOCK)  # as containerd does

    @property
    def environment(self) -> dict[str, str]:
        """As from a containerd that knows version 3."""
        return {
            "PATH": os.environ["PATH"],
            "QEMUBOX_CONFIG": str(self.host.config),
            "QEMUBOX_SERVICE": str(self.host.service),
            "MAX_SHIM_VERSION": "2",
        }

    @property
    def bootstrap(self) -> bytes:
        """What containerd 2.3 writes."""
        return bootstrap_pb2.BootstrapParams(
            instance_id=self.container_id, namespace=self.namespace, socket_dir=str(self.host.sockets)
        ).SerializeToString()

    def words(self, *rest: str) -> list[str]:
        """The command line."""
        flags = ("-namespace", self.namespace, "-address", ADDRESS, "-publish-binary", self.host.containerd)
        return [*COMMAND, *flags, "-id", self.container_id, *rest]

    def start(self, *, stdin: bytes | None = None, environment: dict[str, str] | None = None) -> Answer:
        """Run `start`, and wait until nobody has its streams open any more."""
        return self.run(self.words("start"), self.bootstrap if stdin is None else stdin, environment)

    def delete(self, *, environment: dict[str, str] | None = None) -> Answer:
        """Run `delete`."""
        return self.run(self.words("-bundle", str(self.bundle), "delete"), b"", environment)

    def run(self, words: list[str], stdin: bytes, environment: dict[str, str] | None = None) -> Answer:
        """Run the binary in the bundle."""
        done = subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            cwd=self.bundle,
            env=self.environment if environment is None else environment,
            timeout=50,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    @property
    def pid(self) -> int:
        """The daemon's, by what `start` left in the bundle."""
        return int((self.bundle / "shim.pid").read_text())

    def daemons(self) -> list[int]:
        """Processes that run this container's `start`; one that is to make anchors shows that for its first moment."""
        pids = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_daemon(pid)]
        return [pid for pid in pids if _parent(pid) not in pids]

    def _is_daemon(self, pid: int) -> bool:
        ours = (self.host.containerd, self.namespace, self.container_id)
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return (
                words[-2:] == [b"start", b""]
                and {os.fsencode(word) for word in ours} <= set(words)
                and os.readlink(f"/proc/{pid}/exe") == os.path.realpath(sys.executable)
            )
        except OSError:
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the daemon a signal, and wait until it is gone."""
        os.kill(self.pid, number)
        until(lambda: not self.daemons(), "the daemon has ended")

    def connect(self) -> task_pb2.ConnectResponse:
        """What the daemon answers to Connect, under the name of version 3."""

        async def call(client: Client) -> task_pb2.ConnectResponse:
            return await TaskStub(client).Connect(task_pb2.ConnectRequest(id=self.container_id), timeout_s=30)

        return asyncio.run(self._with_client(call))

    def shutdown(self) -> None:
        """Call Shutdown, and wait until the daemon is gone."""

        async def call(client: Client) -> task_pb2.ConnectResponse:
            await TaskStub(client).Shutdown(task_pb2.ShutdownRequest(id=self.container_id), timeout_s=30)
            return task_pb2.ConnectResponse()

        asyncio.run(self._with_client(call))

    async def _with_client(self, call: Call) -> task_pb2.ConnectResponse:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(self.socket))
        client = Client(sock)
        try:
            return await call(client)
        finally:
            await client.close()

    def log_text(self) -> str:
        """What the shim has written to its log."""
        try:
            return os.read(self.log, 1 << 20).decode()
        except BlockingIOError:
            return ""

    def left(self) -> list[str]:
        """What is on the host because of this container, its bundle apart."""
        paths = [str(path) for path in (self.directory, self.socket) if os.path.lexists(path)]
        return paths + [f"process {pid}" for pid in self.daemons()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    except OSError:  # it ended while we looked
        return 0
