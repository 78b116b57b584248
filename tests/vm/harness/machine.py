"""shim/vm on a real QEMU, with the guest's real kernel and Python, and an agent of ours as PID 1.

No containerd has a part in it. vsock is the daemon's; what needs /dev/vhost-vsock or a usable
/dev/kvm is for a machine that has them. The fixtures are made known by tests/vm/conftest.py.
"""

import asyncio
import json
import os
import pwd
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import pytest

from harness.flavours import CHECKOUT
from harness.qemubox import built_parts
from shim.journal import Journal
from shim.vm.devices import Disk
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.states import Exit
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from shim.vm.vsock_user import UserVsock

QEMU: Final = Path("/usr/bin/qemu-system-x86_64")
BOOT_S: Final = 120
# The first process finds the agent's text on whatever disk it is, before anything is mounted, and becomes it.
_STAGE: Final = (
    "import os;exec([t for t in(open('/dev/'+d,'rb').read(65536)for d in os.listdir('/dev')if d.startswith('vd'))"
    "if t.startswith(b'#agent')][0])"
)


@dataclass(frozen=True)
class Parts:
    """What every machine of these tests is made from."""

    machine: Machine
    daemon: Path
    agent: Path
    credentials: Credentials


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A directory that QEMU's user can pass through."""
    with tempfile.TemporaryDirectory(prefix="qemubox-vm-", dir="/run") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def parts(work: Path) -> Parts:
    kernel, image, daemon = built_parts()
    user = pwd.getpwnam("qemubox")
    agent = work / "agent"
    agent.write_bytes(_padded(b"#agent\n" + (CHECKOUT / "tests/vm/machine_agent.py").read_bytes()))
    shebang = (CHECKOUT / "initrd/root/init").read_text().split()[0]
    machine = Machine(
        QEMU, Path(kernel), Path(image), Accel.TCG, max_vcpus=4, max_memory_mib=4096, shared_memory=True
    ).with_kernel_args(f'init={shebang.removeprefix("#!")} -- -ISBc "{_STAGE}"')
    return Parts(machine, Path(daemon), agent, Credentials(user.pw_uid, user.pw_gid))


def _padded(data: bytes) -> bytes:
    return data + b"\n" * (-len(data) % 512)


class Guest:
    """A machine that runs the agent, and the connection to it."""

    def __init__(self, vm: VirtualMachine, backend: UserVsock, directory: Path) -> None:
        self.vm = vm
        self.backend = backend
        self.directory = directory
        self._control: socket.socket | None = None

    async def boot(self) -> None:
        await self.vm.run()
        self._control = await self.vm.control(BOOT_S)

    async def tell(self, command: str, *arguments: object) -> None:
        assert self._control is not None
        text = json.dumps([command, *arguments]).encode() + b"\n"
        await asyncio.get_running_loop().sock_sendall(self._control, text)

    async def answer(self) -> object:
        assert self._control is not None
        text = b""
        async with asyncio.timeout(60):
            while not text.endswith(b"\n"):
                piece = await asyncio.get_running_loop().sock_recv(self._control, 65536)
                assert piece, f"the agent hung up: {self.vm.console.tail(10)}"
                text += piece
        return json.loads(text)

    async def ask(self, command: str, *arguments: object) -> object:
        await self.tell(command, *arguments)
        return await self.answer()

    async def sees(self, thing: str) -> object:
        seen = await self.ask("see")
        assert isinstance(seen, dict)
        return seen[thing]

    async def disk(self, serial: str) -> dict[str, object]:
        disks = await self.sees("disks")
        assert isinstance(disks, dict)
        found = disks[serial]
        assert isinstance(found, dict)
        return found

    async def ended(self) -> Exit:
        async with asyncio.timeout(60):
            return await self.vm.exited

    def hang_up(self) -> None:
        if self._control is not None:
            self._control.close()


class Start(Protocol):
    """Starts a machine: the one of `parts`, or another."""

    def __call__(self, machine: Machine | None = None) -> AbstractAsyncContextManager[Guest]: ...


def new_directory(work: Path) -> Path:
    """One for a machine, by whose name QEMU is known."""
    directory = work / secrets.token_hex(12)
    directory.mkdir(mode=0o711)
    return directory


async def launch(
    machine: Machine, parts: Parts, directory: Path, *, memory_fd: int = -1, restored: bool = False
) -> VirtualMachine:
    """A paused machine whose journal and console are in `directory`."""
    return await VirtualMachine.launch(
        machine,
        name=f"qemubox-{directory.name}",
        console_path=directory / "console",
        console_kib=64,
        credentials=parts.credentials,
        journal=Journal(directory),
        timeline=Timeline(),
        command_timeout_s=30,
        memory_fd=memory_fd,
        restored=restored,
    )


@pytest.fixture
def start(parts: Parts, work: Path) -> Start:
    """A paused machine with vsock and the agent's disk; killed at the end, when nothing of it may be left."""

    @asynccontextmanager
    async def started(machine: Machine | None = None) -> AsyncIterator[Guest]:
        before = set(os.listdir("/proc/self/fd"))
        directory = new_directory(work)
        vm = await launch(machine or parts.machine, parts, directory)
        backend = UserVsock(
            daemon=parts.daemon,
            directory=directory / "vsock",
            credentials=parts.credentials,
            journal=Journal(directory),
        )
        guest = Guest(vm, backend, directory)
        try:
            await vm.add_vsock(backend, backend.prepare(30))
            await vm.add_disk(Disk("agent", parts.agent))
            yield guest
        finally:
            await vm.kill(10)
            guest.hang_up()
            assert (left := processes(directory.name)) == [], left
            assert not (directory / "vsock").exists()
            assert (after := set(os.listdir("/proc/self/fd"))) == before, after ^ before

    return started


def processes(text: str) -> list[str]:
    """Command lines in which `text` stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in (line := path.read_bytes()):
                found.append(line.replace(b"\0", b" ").decode())
    return found
