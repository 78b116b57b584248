"""shim/vm on a real QEMU, with the guest's real kernel and Python, and an agent of ours as PID 1.

vsock is the daemon's; what needs /dev/vhost-vsock or a usable /dev/kvm is for a machine that has them.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import re
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import pytest

from harness.flavours import CHECKOUT
from harness.qemubox import built_parts
from shim.errors import BootError, MachineError
from shim.journal import Journal
from shim.rootfs import gpt
from shim.vm import accel
from shim.vm.devices import Disk, JoinedDisk, Memory, Nic
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.states import Cause, Exit
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from shim.vm.vsock_user import UserVsock

pytestmark = pytest.mark.timeout(240)

QEMU = Path("/usr/bin/qemu-system-x86_64")
BOOT_S = 120
MIB = 1 << 20
LAYERS = 100
MAC = "02:71:65:6d:75:01"
# The first process finds the agent's text on whatever disk it is, before anything is mounted, and becomes it.
STAGE = (
    "import os;exec([t for t in(open('/dev/'+d,'rb').read(65536)for d in os.listdir('/dev')if d.startswith('vd'))"
    "if t.startswith(b'#agent')][0])"
)
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI_VNET_HDR = 0x0002 | 0x1000 | 0x4000


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
    agent.write_bytes(_padded(b"#agent\n" + Path(__file__).with_name("machine_agent.py").read_bytes()))
    shebang = (CHECKOUT / "initrd/root/init").read_text().split()[0]
    machine = Machine(
        QEMU, Path(kernel), Path(image), Accel.TCG, max_vcpus=4, max_memory_mib=4096, shared_memory=True
    ).with_kernel_args(f'init={shebang.removeprefix("#!")} -- -ISBc "{STAGE}"')
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


@pytest.fixture
def start(parts: Parts, work: Path) -> Start:
    """A paused machine with vsock and the agent's disk; killed at the end, when nothing of it may be left."""

    @asynccontextmanager
    async def started(machine: Machine | None = None) -> AsyncIterator[Guest]:
        before = set(os.listdir("/proc/self/fd"))
        key = secrets.token_hex(12)
        directory = work / key
        directory.mkdir(mode=0o711)
        journal = Journal(directory)
        vm = await VirtualMachine.launch(
            machine or parts.machine,
            name=f"qemubox-{key}",
            console_path=directory / "console",
            console_kib=64,
            credentials=parts.credentials,
            journal=journal,
            timeline=Timeline(),
            command_timeout_s=30,
        )
        backend = UserVsock(
            daemon=parts.daemon, directory=directory / "vsock", credentials=parts.credentials, journal=journal
        )
        guest = Guest(vm, backend, directory)
        try:
            await vm.add_vsock(backend, 30)
            await vm.add_disk(Disk("agent", parts.agent))
            yield guest
        finally:
            await vm.kill(10)
            guest.hang_up()
            assert _processes(key) == []
            assert not (directory / "vsock").exists()
            assert set(os.listdir("/proc/self/fd")) == before

    return started


def _processes(text: str) -> list[str]:
    """Command lines in which `text` stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if text.encode() in (line := path.read_bytes()):
                found.append(line.replace(b"\0", b" ").decode())
    return found


@pytest.fixture(scope="module")
def layers(work: Path) -> list[Path]:
    """Small EROFS images; each holds its own number."""
    source, images = work / "layer", []
    source.mkdir()
    for number in range(1, LAYERS + 1):
        (source / "name").write_text(f"layer {number}\n")
        (source / "data").write_bytes(bytes(number * 1000))
        images.append(work / f"{number}.erofs")
        subprocess.run(["mkfs.erofs", "-Enoinline_data", images[-1], source], check=True, capture_output=True)
    return images


@contextlib.contextmanager
def tap() -> Iterator[int]:
    """An open TAP; the interface is gone when all have closed it."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"qbxtest%d", IFF_TAP_NO_PI_VNET_HDR))
        yield fd
    finally:
        os.close(fd)


def sparse(path: Path, mib: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mib * MIB)
    return path


async def test_everything_that_was_plugged_in_is_there(start: Start, layers: list[Path], work: Path) -> None:
    """Three disks, one of a hundred files, memory, an interface: before the guest's first instruction."""
    table = gpt.table([layer.stat().st_size for layer in layers])
    async with start() as guest:
        vm = guest.vm
        await vm.add_disk(Disk("rw", sparse(work / "rw", 64), read_only=False))
        await vm.add_disk(Disk("layer0", layers[0]))
        await vm.add_disk(JoinedDisk("layers", (table.head, *layers, table.tail)))
        await vm.add_memory(Memory(max_mib=1024, requested_mib=514))
        with tap() as fd:
            await vm.add_nic(Nic("eth0", MAC, fd))
        await guest.boot()
        assert await guest.disk("rw") | {"name": ""} == {
            "name": "",
            "read_only": False,
            "bytes": 64 * MIB,
            "partitions": 0,
        }
        assert (await guest.disk("layer0"))["read_only"] is True
        joined = await guest.disk("layers")
        assert (joined["read_only"], joined["partitions"]) == (True, LAYERS)
        assert await guest.ask("layer_names", joined["name"], LAYERS) == [
            f"layer {number}" for number in range(1, LAYERS + 1)
        ]
        assert await guest.sees("macs") == [MAC]
        assert (await guest.sees("present"), await guest.sees("online")) == ("0-3", "0")
        memory = await guest.sees("memory_kib")
        assert isinstance(memory, int)
        assert 514 < memory >> 10 < 514 + 128


async def test_qemu_and_the_daemon_have_no_rights(start: Start, parts: Parts) -> None:
    async with start() as guest:
        assert guest.backend._process is not None
        for pid, seccomp in ((guest.vm.pid, "2"), (guest.backend._process.pid, "0")):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
            assert status["Uid"].split() == [str(parts.credentials.uid)] * 4
            assert status["Groups"].split() == []
            assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0" * 16
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", seccomp)


async def test_into_and_out_of_a_running_guest(start: Start, layers: list[Path]) -> None:
    async with start() as guest:
        await guest.boot()

        async def there() -> bool:
            disks = await guest.sees("disks")
            assert isinstance(disks, dict)
            return "layer0" in disks

        for _ in range(2):
            await guest.vm.add_disk(Disk("layer0", layers[0]))
            async with asyncio.timeout(30):  # each question is a round trip to the guest
                while not await there():
                    pass
            await guest.vm.remove_device("layer0", 60)
            assert not await there()


async def test_what_the_guest_writes_is_in_the_file_and_what_it_frees_is_not(start: Start, work: Path) -> None:
    image = sparse(work / "written", 16)
    async with start() as guest:
        await guest.vm.add_disk(Disk("rw", image, read_only=False))
        await guest.boot()
        name = (await guest.disk("rw"))["name"]
        assert await guest.ask("write", name, 4 * MIB, 2 * MIB, 7) == ""
        with image.open("rb") as file:
            assert file.read(4 * MIB) == bytes(4 * MIB)
            assert file.read(2 * MIB) == b"\7" * 2 * MIB
        assert image.stat().st_blocks * 512 >= 2 * MIB
        await guest.ask("discard", name, 4 * MIB, 2 * MIB)
        assert image.stat().st_blocks * 512 < MIB


async def test_a_writable_disk_is_one_machines(start: Start, work: Path) -> None:
    image = sparse(work / "locked", 16)
    async with start() as first, start() as second:
        await first.vm.add_disk(Disk("rw", image, read_only=False))
        with pytest.raises(MachineError, match=r'device_add rw.*"write" lock'):
            await second.vm.add_disk(Disk("rw", image, read_only=False))


@pytest.fixture
def small(work: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    directory = work / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


async def test_a_full_host_is_an_error_in_the_guest_and_nothing_worse(start: Start, small: Path) -> None:
    """QEMU's default would stop the machine, and whoever waits for it."""
    async with start() as guest:
        await guest.vm.add_disk(Disk("rw", sparse(small / "image", 16), read_only=False))
        await guest.boot()
        name = (await guest.disk("rw"))["name"]
        assert await guest.ask("write", name, 0, 8 * MIB, 7) == "Input/output error"
        assert (await guest.disk("rw"))["bytes"] == 16 * MIB


async def test_memory_grows_and_shrinks(start: Start) -> None:
    async with start() as guest:
        await guest.vm.add_memory(Memory(max_mib=1024, requested_mib=0))
        await guest.boot()

        async def more_mib() -> float:
            memory = await guest.sees("memory_kib")
            assert isinstance(memory, int)
            return memory / 1024 - base

        base = 0.0
        base = await more_mib()
        for requested_mib in (130, 512, 1024):
            await guest.vm.resize_memory(requested_mib)
            async with asyncio.timeout(30):
                while await more_mib() != requested_mib:
                    pass
        # What the guest's kernel keeps for itself stays (docs/decisions/0003).
        for requested_mib in (512, 0):
            await guest.vm.resize_memory(requested_mib)
            async with asyncio.timeout(30):
                while await more_mib() > requested_mib + 64:
                    pass


async def test_streams_of_many_megabytes_in_large_pieces(start: Start) -> None:
    """A guest's packets of more than 32 KiB come in pieces that the daemon does not take: see vsock_user."""
    count = 20 * MIB
    loop = asyncio.get_running_loop()
    async with start() as guest:
        await guest.boot()
        for _ in range(2):
            token = secrets.token_bytes(16)
            expected = guest.vm.expect(token)
            await guest.tell("send", token.hex(), count)
            async with asyncio.timeout(60):
                stream = await expected
                left, digest = count, hashlib.sha256()
                while left:
                    data = await loop.sock_recv(stream, 1 << 18)
                    assert data
                    digest.update(data)
                    left -= len(data)
            stream.close()
            assert await guest.answer() == digest.hexdigest()

            token, data = secrets.token_bytes(16), os.urandom(MIB) * (count // MIB)
            expected = guest.vm.expect(token)
            await guest.tell("receive", token.hex(), count)
            async with asyncio.timeout(60):
                stream = await expected
                await loop.sock_sendall(stream, data)
            assert await guest.answer() == hashlib.sha256(data).hexdigest()
            stream.close()


async def test_who_is_not_expected_is_turned_away(start: Start) -> None:
    async with start() as guest:
        await guest.boot()
        assert await guest.ask("turned_away", bytes(16).hex()) is True
        assert await guest.ask("turned_away", secrets.token_hex(16)) is True
        late = guest.vm.expect(secrets.token_bytes(16))
        await guest.vm.kill(10)
        with pytest.raises(MachineError, match="gone"):
            await late


@pytest.mark.parametrize(
    ("command", "cause"), [("panic", Cause.PANIC), ("_exit", Cause.PANIC), ("power_off", Cause.POWEROFF)]
)
async def test_how_a_guest_ends(start: Start, command: str, cause: Cause) -> None:
    async with start() as guest:
        await guest.boot()
        await guest.tell(command, *([3] if command == "_exit" else []))
        assert await guest.ended() == Exit(cause, 0)
        if cause is Cause.PANIC:
            assert "Kernel panic - not syncing" in guest.vm.console.tail(1)[0]
            assert "Kernel panic - not syncing" in (guest.directory / "console").read_text()


async def test_a_guest_that_panics_before_it_calls_says_why(start: Start, parts: Parts) -> None:
    async with start(replace(parts.machine, kernel_args="init=/nonexistent")) as guest:
        with pytest.raises(BootError) as caught:
            await guest.boot()
    assert "failed while booting: the guest's kernel panicked; console: " in caught.value.message
    assert "Requested init /nonexistent failed (error -2)." in caught.value.message


async def test_a_guest_that_never_calls_meets_the_deadline(start: Start) -> None:
    async with start() as guest:
        with pytest.raises(BootError, match=r"failed while booting: the guest did not call within 0\.2 s"):
            await guest.vm.control(0.2)


async def test_a_killed_qemu_ends_every_wait(start: Start) -> None:
    async with start() as guest:
        await guest.vm.run()
        waiting = asyncio.ensure_future(guest.vm.control(BOOT_S))
        os.kill(guest.vm.pid, signal.SIGKILL)
        assert await guest.ended() == Exit(Cause.QEMU, -signal.SIGKILL)
        with pytest.raises(BootError, match="QEMU was killed by SIGKILL"):
            await waiting


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"cpu_model": "nonsense"}, "unable to find CPU model 'nonsense'"), ({"kernel": Path("/etc/passwd")}, "kernel")],
)
async def test_a_qemu_that_does_not_start_is_quoted(
    start: Start, parts: Parts, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(BootError) as caught:
        async with start(replace(parts.machine, **changes)):  # type: ignore[arg-type]
            pass
    assert "failed while starting QEMU: QEMU ended with exit status 1; its words: " in caught.value.message
    assert words in caught.value.message
    assert caught.value.hint.startswith(f"repeat with: {QEMU} ")


async def test_the_daemons_end_is_the_machines(start: Start) -> None:
    async with start() as guest:
        await guest.boot()
        assert guest.backend._process is not None
        os.kill(guest.backend._process.pid, signal.SIGKILL)
        how = await guest.ended()
        assert (how.cause, how.detail) == (Cause.VSOCK, "vhost-device-vsock was killed by SIGKILL")


SHIM = """
import asyncio, pathlib, sys
from shim.journal import Journal
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from shim.vm.vsock_user import UserVsock

async def main(qemu, kernel, image, daemon, directory, uid, gid):
    directory, journal = pathlib.Path(directory), Journal(pathlib.Path(directory))
    user = Credentials(int(uid), int(gid))
    vm = await VirtualMachine.launch(
        Machine(pathlib.Path(qemu), pathlib.Path(kernel), pathlib.Path(image), Accel.TCG, 1, 128, shared_memory=True),
        name="qemubox-" + directory.name, console_path=directory / "console", console_kib=64, credentials=user,
        journal=journal, timeline=Timeline(), command_timeout_s=30,
    )
    await vm.add_vsock(
        UserVsock(daemon=pathlib.Path(daemon), directory=directory / "vsock", credentials=user, journal=journal), 30
    )
    await vm.run()
    print(vm.pid, vm._vsock._process.pid, flush=True)
    await vm.exited

asyncio.run(main(*sys.argv[1:]))
"""


def test_qemu_and_the_daemon_die_with_the_shim(parts: Parts, work: Path) -> None:
    directory = work / secrets.token_hex(12)
    directory.mkdir(mode=0o711)
    machine, user = parts.machine, parts.credentials
    words = [machine.qemu, machine.kernel, machine.image, parts.daemon, directory, user.uid, user.gid]
    shim = subprocess.Popen(
        [sys.executable, "-c", SHIM, *map(str, words)], stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
    )
    assert shim.stdout is not None
    pidfds = [os.pidfd_open(int(pid)) for pid in shim.stdout.readline().split()]
    shim.kill()
    shim.communicate()
    assert len(pidfds) == 2
    for fd in pidfds:
        ready, _, _ = select.select([fd], [], [], 20)
        os.close(fd)
        assert ready, "it outlived the shim"
    assert _processes(directory.name) == []


async def test_the_probe_believes_a_kernel_that_looked_for_its_first_process(parts: Parts, work: Path) -> None:
    """Under TCG, to show what it takes for a proof on any machine."""
    machine = replace(parts.machine, shared_memory=False, kernel_args="")
    for arguments, usable in (("", True), ("root=/dev/nonexistent", False)):
        verdict = await accel._try(
            machine.with_kernel_args(arguments), work / "probe", parts.credentials, Journal(work), BOOT_S
        )
        assert verdict.usable is usable, verdict
    assert _processes("qemubox-probe") == []


async def test_the_probe_of_this_machines_kvm_is_true_and_remembered(parts: Parts, work: Path) -> None:
    """Whether it works here or not, the answer is what a machine under KVM then does."""
    credentials = replace(parts.credentials, groups=accel.kvm_groups())
    machine = replace(parts.machine, shared_memory=False, kernel_args="")
    runtime_dir = work / "accel"
    runtime_dir.mkdir(mode=0o711)

    async def probe() -> accel.Verdict:
        return await accel.probe(
            machine, runtime_dir=runtime_dir, credentials=credentials, journal=Journal(runtime_dir), timeout_s=60
        )

    verdict = await probe()
    again = time.monotonic()
    assert await probe() == verdict
    assert time.monotonic() - again < 0.5
    assert not list(runtime_dir.glob("*.console*"))
    by_hand = await accel._try(
        replace(machine, accel=Accel.KVM), work / "by-hand", credentials, Journal(runtime_dir), 60
    )
    assert by_hand.usable is verdict.usable
    assert re.search(r"in \d+\.\d s$" if verdict.usable else "KVM|kvm", verdict.reason)
