"""Machines as `qemubox` finds them: files in the runtime directory, a process as QEMU, a shim that answers."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from shim import inspection
from shim.copy import address
from shim.inspection import Inspection
from tests.unit.shim.observe import DEADLINE_S, wait_for_words
from ttrpc import Server
from ttrpc.service import Service

KEY = "0123456789abcdef01234567"
_MACHINE = Inspection(
    namespace="ns",
    id="box",
    shim_pid=1,
    qemu_pid=0,
    template="f00d",
    memory="private",
    memory_shared=False,
    link="serial",
    accelerator="tcg",
    vcpus=2,
    host_cpus="",
    base_memory_mib=128,
    memory_mib=384,
    disks={},
    netns="",
    interfaces={"eth0": inspection.Interface("02:00:00:00:00:01", "tap0", 1, vhost=False)},
    console="",
)


class Machine:
    """One container's directory in `state_dir`; `qemu` is a process with QEMU's marker, once it was started."""

    def __init__(self, state_dir: Path, *, container: str = "box", namespace: str = "ns", key: str = KEY) -> None:
        self.directory = state_dir / "vm" / key
        self.directory.mkdir(parents=True)
        self.socket = state_dir / key[:6]
        self.bundle = state_dir / f"bundle-{key[:6]}"
        self.bundle.mkdir()
        (self.bundle / "config.json").write_text(json.dumps({"annotations": {"nerdctl/name": f"name-of-{container}"}}))
        self.container, self.namespace, self.key = container, namespace, key
        written = address.Address(namespace, container, str(self.bundle), str(self.socket))
        address.write(self.directory, written)
        self.qemu: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> Path:
        """The file of the guest's console."""
        return self.directory / "console"

    def start(self) -> None:
        """The container has started: there is a QEMU, and it is shown."""
        words = [sys.executable, "-c", "import sys; sys.stdin.read()", "-name", f"guest=qemubox-{self.key}"]
        self.qemu = subprocess.Popen(words, stdin=subprocess.PIPE)
        wait_for_words(self.qemu.pid, self.key)
        shown = replace(_MACHINE, namespace=self.namespace, id=self.container, qemu_pid=self.qemu.pid)
        inspection.write(self.directory, shown)

    def end(self) -> None:
        """QEMU ends."""
        assert self.qemu is not None
        assert self.qemu.stdin is not None
        self.qemu.stdin.close()
        self.qemu.wait(DEADLINE_S)

    def silent(self) -> socket.socket:
        """Be a shim that takes connections, by its backlog, and never answers. The caller closes it."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen()
        listener.setblocking(False)
        return listener

    @contextlib.asynccontextmanager
    async def serving(self, *services: Service) -> AsyncIterator[None]:
        """Be a shim that serves these."""
        server = Server(services)
        with self.silent() as listener:
            task = asyncio.create_task(server.serve_listener(listener))
            try:
                yield
            finally:
                await server.close(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.socket.unlink()

    def close(self) -> None:
        """Leave no process."""
        if self.qemu is not None:
            self.qemu.kill()
            self.qemu.wait()
            assert self.qemu.stdin is not None
            self.qemu.stdin.close()
