"""A machine with the real vminitd and no shim around it: a clone that one gives devices, configures, looks into.

What runs in it is iproute2, so that a guest's network is seen with the eyes with which a host's is.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import pytest

from api import guest_pb2
from api.frames import FrameReader
from api.link import CALLS_BEFORE
from deploy.image import BUSYBOX
from harness.machine import BOOT_S, QEMU, Parts, launch, new_directory, processes
from harness.qemubox import built_parts
from shim.guest import Guest, connect
from shim.template import memory
from shim.template.build import build
from shim.template.store import Store, Template, name_of
from shim.vm.devices import Disk
from shim.vm.hotplug import Seat
from shim.vm.machine import Accel, Machine
from shim.vm.vm import VirtualMachine
from ttrpc import Client
from vminitd.spec import Json

_CALL_S: Final = 60
_TOOLS: Final = ("ip", "bridge")


class Clone:
    """A machine that waits for its host. Give it devices, `run` it, `configure` it."""

    def __init__(self, vm: VirtualMachine, tools: Seat) -> None:
        self.vm = vm
        self._tools = tools
        self._client: Client | None = None
        self._programs = 0

    @property
    def guest(self) -> Guest:
        assert self._client is not None
        return Guest(self._client, self.vm.exited)

    async def run(self) -> None:
        await self.vm.run()
        self._client = connect(await self.vm.control(BOOT_S), calls_before=CALLS_BEFORE)

    async def configure(
        self, network: guest_pb2.NetworkConfig | None = None, *, vcpus: int = 1
    ) -> guest_pb2.ConfigureResponse:
        request = guest_pb2.ConfigureRequest(
            hostname="guest", entropy=os.urandom(64), wall_clock_ns=time.time_ns(), vcpus=vcpus, network=network
        )
        return await self.guest.call(self.guest.machine.Configure(request), deadline_s=_CALL_S)

    async def marks(self) -> dict[str, float]:
        """What was reached when, in milliseconds of the guest's clock."""
        found = (await self.configure()).milestones
        return {each.name: each.boottime_ns / 1e6 for each in found}

    async def create(self, *words: str, stdout: bytes = b"") -> str:
        """A container of the tools that is to run `words`; its id. Raises GuestError."""
        self._programs += 1
        name = f"program{self._programs}"
        request = guest_pb2.CreateRequest(
            container_id=name,
            spec=_specification(words),
            rootfs=guest_pb2.Rootfs(lower=[guest_pb2.Layer(serial=self._tools.serial, fstype="erofs")]),
            stdio=guest_pb2.Stdio(stdout=stdout),
        )
        request.rootfs.lower[0].disk_bytes = self._tools.size
        await self.guest.call(self.guest.containers.Create(request), deadline_s=_CALL_S)
        return name

    async def says(self, *words: str) -> str:
        """What a program in the guest writes."""
        token, dialled = await self.vm.new_stream()
        name = await self.create(*words, stdout=token)
        connection = await dialled
        with connection:
            start = guest_pb2.StartRequest(container_id=name)
            await self.guest.call(self.guest.containers.Start(start), deadline_s=_CALL_S)
            said, frames = bytearray(), FrameReader()
            async with asyncio.timeout(_CALL_S):
                while not frames.ended:
                    received = await asyncio.get_running_loop().sock_recv(connection, 65536)
                    assert received, "the stream has no end"
                    for piece in frames.feed(memoryview(received)):
                        said += piece
        process = guest_pb2.ProcessRequest(container_id=name)
        ended = await self.guest.call(self.guest.containers.Wait(process), deadline_s=_CALL_S)
        await self.guest.call(self.guest.containers.Delete(process), deadline_s=_CALL_S)
        assert ended.exit_status == 0, (words, ended.exit_status, said)
        return said.decode()

    async def ip(self, question: str) -> list[Json]:
        """What `ip -j` says in there."""
        answer = json.loads(await self.says("/bin/ip", "-j", *question.split()) or "[]")
        found: list[Json] = answer
        return found

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
        await self.vm.kill(10)


class Clones(Protocol):
    """Makes a clone, paused."""

    def __call__(self) -> AbstractAsyncContextManager[Clone]: ...


@pytest.fixture(scope="module")
def tools(work: Path) -> Path:
    """A disk with iproute2 and busybox."""
    root = work / "tools"
    for name in ("bin", "proc", "sys", "dev", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for name in _TOOLS:
        program = shutil.which(name)
        assert program is not None, f"{name} is not there: apt-get install iproute2"
        shutil.copy(program, root / "bin" / name)
        libraries = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", libraries):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])
    subprocess.run(["mkfs.erofs", work / "tools.erofs", root], check=True, capture_output=True)
    return work / "tools.erofs"


@pytest.fixture(scope="module")
def template(work: Path, parts: Parts) -> Iterator[Template]:
    """What a machine is once vminitd waits."""
    kernel, image, _daemon = built_parts()
    machine = Machine(QEMU, Path(kernel), Path(image), Accel.TCG, max_vcpus=4, max_memory_mib=4096, ports=True)
    store = Store(work / "templates", limit_mib=0)
    making = build(store, machine, namespace="", credentials=parts.credentials, boot_timeout_s=BOOT_S, again=False)
    asyncio.run(making)
    made = store.open(name_of(machine.fingerprint()))
    yield made
    made.close()


@pytest.fixture
def clones(template: Template, tools: Path, parts: Parts, work: Path) -> Clones:
    """Clones of the template with the tools' disk; killed at the end, when nothing of them may be left."""
    kernel, image, _daemon = built_parts()
    machine = Machine(QEMU, Path(kernel), Path(image), Accel.TCG, max_vcpus=4, max_memory_mib=4096, ports=True)

    @asynccontextmanager
    async def made() -> AsyncIterator[Clone]:
        directory = new_directory(work)
        memory_fd = memory.copy(template.fd, template.metadata.memory_size)
        try:
            vm = await launch(machine, parts, directory, memory_fd=memory_fd, restored=True)
        finally:
            os.close(memory_fd)
        clone: Clone | None = None
        try:
            await vm.restore(template.fd, template.metadata.memory_size, 30)
            clone = Clone(vm, await vm.add_disk(Disk("tools", tools)))
            yield clone
        finally:
            await (clone.close() if clone is not None else vm.kill(10))
            assert (left := processes(directory.name)) == [], left

    return made


def _specification(words: tuple[str, ...]) -> bytes:
    """A container that sees the machine's network and may not change it."""
    return json.dumps(
        {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": list(words), "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]},
        }
    ).encode()
