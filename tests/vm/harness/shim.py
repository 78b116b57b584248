"""A shim of its own, started as containerd starts it, and the task API straight on its socket.

containerd itself makes no call here. It gives the specification, the snapshot and the environment, and takes the
events. What the shim answers is therefore its own answer, not what containerd makes of it.
"""

import asyncio
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf.message import Message

from api import bootstrap_pb2, types_pb2
from harness.containerd import ADDRESS, Containerd
from harness.flavours import Flavour
from harness.images import BUSYBOX
from harness.qemubox import BINARY
from shim import wire
from ttrpc import Client

NAMESPACE: Final = "default"
_COMMAND_DEADLINE_S: Final = 60.0
_DIAL_DEADLINE_S: Final = 20.0
_Reply = TypeVar("_Reply", bound=Message)


class Record:
    """A container that containerd has on its books without a task: a specification and a snapshot to make tasks from.

    One task at a time may stand on its snapshot.
    """

    def __init__(self, containerd: Containerd, name: str) -> None:
        self.containerd = containerd
        self.name = name
        containerd.ctr("containers", "create", BUSYBOX, name, "true").checked()
        text = containerd.ctr("containers", "info", name).checked().stdout
        self._spec = json.loads(text)["Spec"]
        self.mounts = [_mount(line) for line in self._mount_lines()]

    def specification(self, container_id: str, args: list[str], *, terminal: bool) -> str:
        """config.json for a task of that id."""
        linux = {**self._spec["linux"], "cgroupsPath": f"/{NAMESPACE}/{container_id}"}
        process = {**self._spec["process"], "args": args, "terminal": terminal}
        return json.dumps({**self._spec, "linux": linux, "process": process})

    def remove(self) -> None:
        """Take it off the books."""
        self.containerd.ctr("containers", "rm", self.name).checked()

    def _mount_lines(self) -> list[str]:
        return self.containerd.ctr("snapshots", "mounts", "/", self.name).checked().text.splitlines()


def _mount(line: str) -> types_pb2.Mount:
    """From the command that `ctr snapshots mounts` prints: mount -t TYPE SOURCE TARGET -o OPTIONS."""
    _command, _t, kind, source, _target, _o, options = line.split(" ")
    return types_pb2.Mount(type=kind, source=source, options=options.split(","))


class Fifos:
    """FIFOs in a new directory, each with a reader and a writer, so that nobody waits for another."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self.path.mkdir(parents=True)
        self._held: list[int] = []

    def new(self, name: str) -> str:
        """One more: its path."""
        path = self.path / name
        os.mkfifo(path, 0o600)
        self._held.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        return str(path)

    def remove(self) -> None:
        """Take them away, and all that is beside them."""
        while self._held:
            os.close(self._held.pop())
        shutil.rmtree(self.path)


class Bundle:
    """A directory for a shim to start in; its streams are in it, too."""

    def __init__(self, record: Record, container_id: str, args: list[str], *, terminal: bool) -> None:
        self.container_id = container_id
        self.fifos = Fifos(record.containerd.cell.directory / "bundles" / container_id)
        self.path = self.fifos.path
        (self.path / "rootfs").mkdir()
        (self.path / "config.json").write_text(record.specification(container_id, args, terminal=terminal))
        # A file and not a FIFO: what the shim says can be shown when a test fails.
        (self.path / "log").touch()

    def log(self) -> str:
        """What the shim has said."""
        return (self.path / "log").read_text(errors="replace")

    def remove(self) -> None:
        """Take it away; its shim must be gone."""
        self.fifos.remove()


class ShimBinary:
    """The shim binary of a runtime, for one bundle."""

    def __init__(self, containerd: Containerd, runtime: str, bundle: Bundle) -> None:
        self._containerd = containerd
        self._bundle = bundle
        flavour = containerd.flavour
        is_vm = runtime == "qemubox"
        self._path = str(containerd.qemubox.bin / BINARY if is_vm else flavour.shims / "containerd-shim-runc-v2")
        self._environment = {
            **containerd.environment,
            "TTRPC_ADDRESS": f"{ADDRESS}.ttrpc",
            "GRPC_ADDRESS": ADDRESS,
            "NAMESPACE": NAMESPACE,
            "GOMAXPROCS": "2",
            # containerd 1.6 sets none, and takes nothing but a plain address.
            **({"MAX_SHIM_VERSION": "2"} if flavour.config_version > 2 else {}),
        }

    def start(self) -> bytes:
        """`start`: what it prints."""
        said = bootstrap(self._containerd.flavour, self._bundle.container_id, NAMESPACE)
        return self._run("start", stdin=said)

    def delete(self) -> bytes:
        """`delete`, which containerd runs when a shim has gone."""
        return self._run("-bundle", str(self._bundle.path), "delete")

    def _run(self, *words: str, stdin: bytes = b"") -> bytes:
        publisher = str(self._containerd.flavour.containerd)
        flags = ["-namespace", NAMESPACE, "-address", ADDRESS, "-publish-binary", publisher]
        argv = [self._path, *flags, "-id", self._bundle.container_id, *words]
        done = subprocess.run(
            self._containerd.cell.inside(argv, self._bundle.path),
            check=False,
            input=stdin,
            capture_output=True,
            env=self._environment,
            timeout=_COMMAND_DEADLINE_S,
        )
        assert done.returncode == 0, f"{' '.join(argv)} failed with {done.returncode}: {done.stderr!r}"
        return done.stdout


def bootstrap(flavour: Flavour, container_id: str, namespace: str) -> bytes:
    """What that containerd writes to the standard input of `start`: since 2.3 its parameters, by which it is known."""
    if flavour.config_version < 3:
        return b""
    return bootstrap_pb2.BootstrapParams(
        instance_id=container_id,
        namespace=namespace,
        containerd_ttrpc_address=f"{ADDRESS}.ttrpc",
        containerd_grpc_address=ADDRESS,
        containerd_binary=str(flavour.containerd),
    ).SerializeToString()


def parse(answer: bytes) -> tuple[str, str]:
    """The socket's path and the service's name, from what `start` has printed, in any of its three forms."""
    if answer.startswith(b"{"):
        document = json.loads(answer)
        version, address = document["version"], document["address"]
    elif answer.startswith(b"unix://"):
        version, address = 2, answer.decode().strip()
    else:  # containerd 2.3 and newer: a containerd.runtime.bootstrap.v1.BootstrapResult
        found = dict(wire.fields(answer))
        version, name = found[1], found[2]
        assert isinstance(name, bytes), f"start has printed {answer!r}"
        address = name.decode()
    return address.removeprefix("unix://"), f"containerd.task.v{version}.Task"


async def dial(containerd: Containerd, address: str) -> socket.socket:
    """The shim's socket at that path of the cell, connected."""
    path = containerd.cell.path(address)
    # The path through the cell's root is longer than unix(7) allows; by its open directory it is short.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(_DIAL_DEADLINE_S):
            await asyncio.get_running_loop().sock_connect(sock, f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


class Connection:
    """One connection to a shim. To be made, used and closed in the same event loop."""

    def __init__(self, client: Client, service: str) -> None:
        self._client = client
        self._service = service

    @classmethod
    async def dial(cls, containerd: Containerd, answer: bytes) -> "Connection":
        """To the shim whose `start` has printed `answer`."""
        address, service = parse(answer)
        return cls(Client(await dial(containerd, address)), service)

    async def call(self, method: str, request: Message, reply: type[_Reply], deadline_s: float) -> _Reply:
        """One call. Raises the StatusError that the shim answers, or DEADLINE_EXCEEDED."""
        return await self._client.call(f"/{self._service}/{method}", request, reply, timeout_s=deadline_s)

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()
