"""A machine's life around a QEMU that only talks: starts, states, ends, and what is left."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shim.errors import BootError, HostError, MachineError, MissingPartError, StateError
from shim.journal import Journal
from shim.vm.devices import Disk, JoinedDisk
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.states import Cause, Exit, RunState
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from shim.vm.vsock import UserVsockDevice, VsockDevice

# Speaks QMP on the descriptor it is given. What it does at `cont` stands at the end of the kernel's command line:
# a list of steps, each an event's name and data, "exit" with a status, or "print" with a line for the console.
QEMU = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys
fds = {{item.split(",")[1]: int(item.rsplit("=", 1)[1]) for item in sys.argv if item.startswith("socket,id=")}}
steps = json.loads(sys.argv[sys.argv.index("-append") + 1].split(" steps=", 1)[1])
qmp, status = socket.socket(fileno=fds["id=qmp"]), "prelaunch"
if steps == "exit":
    sys.exit("qemu: cannot do that")
if steps == "silent":
    while True:
        signal.pause()
send = lambda message: qmp.sendall(json.dumps(message).encode() + b"\\n")
send({{"QMP": {{"version": {{}}, "capabilities": []}}}})
def commands():
    text = ""
    while data := qmp.recv(65536):
        text += data.decode()
        while text.strip():
            try:
                message, end = json.JSONDecoder().raw_decode(text.lstrip())
            except ValueError:
                break
            text = text.lstrip()[end:]
            yield message
for message in commands():
    name = message["execute"]
    if name == "query-status":
        send({{"return": {{"status": status}}, "id": message["id"]}})
        continue
    send({{"return": {{}}, "id": message.get("id")}} if "id" in message else {{"return": {{}}}})
    if name != "cont":
        continue
    for step, detail in steps:
        if step == "exit":
            sys.exit(detail)
        elif step == "abort":
            os.abort()
        elif step == "print":
            os.write(fds["id=console"], detail.encode() + b"\\n")
        elif step == "status":
            status = detail
        else:
            send({{"event": step, "data": detail, "timestamp": {{"seconds": 0, "microseconds": 0}}}})
"""

Steps = str | list[tuple[str, object]]
Launch = Callable[[Steps], "contextlib.AbstractAsyncContextManager[VirtualMachine]"]


class Backend:
    """A vsock backend that goes no further than its own sockets."""

    shared_memory = False

    def __init__(self) -> None:
        self.closed = 0
        self.lose: Callable[[str], None] = lambda _: None
        self._fd = os.memfd_create("vsock")

    async def prepare(self, timeout_s: float) -> VsockDevice:
        return UserVsockDevice(70000, self._fd)

    def on_lost(self, handler: Callable[[str], None]) -> None:
        self.lose = handler

    def device_added(self) -> None:
        """The descriptor was handed over: `close` releases it."""

    async def control(self, timeout_s: float) -> socket.socket:
        connection: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        return await connection

    def expect(self, token: bytes) -> "asyncio.Future[socket.socket]":
        return asyncio.get_running_loop().create_future()

    async def close(self, timeout_s: float) -> None:
        self.closed += 1
        os.close(self._fd)


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    path = tmp_path / "qemu"
    path.write_text(QEMU)
    path.chmod(0o755)
    return path


@pytest.fixture
def launch(qemu: Path, credentials: Credentials, journal: Journal) -> Launch:
    """Launch a machine that does `steps` once it runs; at the end it is killed and no descriptor is left."""

    @contextlib.asynccontextmanager
    async def launched(steps: Steps) -> AsyncIterator[VirtualMachine]:
        before = set(os.listdir("/proc/self/fd"))
        vm = await VirtualMachine.launch(
            Machine(qemu, qemu, qemu, Accel.TCG, 1, 128, kernel_args="steps=" + json.dumps(steps)),
            name="qemubox-cafe",
            console_path=qemu.parent / "console",
            console_kib=16,
            credentials=credentials,
            journal=journal,
            timeline=Timeline(),
            command_timeout_s=10,
        )
        try:
            yield vm
        finally:
            await vm.kill(10)
            assert vm.state is RunState.ENDED
            assert set(os.listdir("/proc/self/fd")) == before

    return launched


async def ended(vm: VirtualMachine) -> Exit:
    async with asyncio.timeout(20):
        return await vm.exited


async def test_it_starts_paused_and_runs_when_told(launch: Launch, journal: Journal) -> None:
    async with launch([]) as vm:
        states = [vm.state]
        for step in (vm.run, vm.pause, vm.run):
            await step()
            states.append(vm.state)
        assert states == [RunState.PAUSED, RunState.RUNNING, RunState.PAUSED, RunState.RUNNING]
        assert [name for name, _ in vm.timeline.marks] == ["launch", "spawned", "paused", "run", "run"]
        assert {"kind": "process", "marker": "qemubox-cafe"} in journal.entries()
        assert await vm.kill(10) == Exit(Cause.KILLED, -signal.SIGKILL)
        with pytest.raises(StateError, match="is ended: it cannot become running"):
            await vm.run()
        with pytest.raises(StateError, match="it takes no devices"):
            await vm.add_disk(Disk("layer0", Path("/nonexistent")))


@pytest.mark.parametrize(
    ("steps", "exit_"),
    [
        ([("SHUTDOWN", {"guest": True, "reason": "guest-shutdown"}), ("exit", 0)], Exit(Cause.POWEROFF, 0)),
        ([("SHUTDOWN", {"guest": True, "reason": "guest-reset"}), ("exit", 0)], Exit(Cause.RESET, 0)),
        ([("GUEST_PANICKED", {"action": "pause"}), ("exit", 0)], Exit(Cause.PANIC, 0)),
        ([("exit", 1)], Exit(Cause.QEMU, 1)),
        ([("abort", 0)], Exit(Cause.QEMU, -signal.SIGABRT)),
    ],
)
async def test_why_it_ended(launch: Launch, steps: Steps, exit_: Exit) -> None:
    async with launch(steps) as vm:
        with contextlib.suppress(MachineError):  # it may be gone before the command is answered
            await vm.run()
        assert await ended(vm) == exit_
        assert await vm.kill(10) == exit_


async def test_an_accelerator_that_gives_up_ends_the_machine(launch: Launch) -> None:
    """QEMU itself would stand there, stopped, for ever."""
    async with launch([("status", "internal-error"), ("STOP", {})]) as vm:
        await vm.run()
        assert (await ended(vm)).cause is Cause.ACCELERATOR


async def test_a_stop_of_another_kind_does_not(launch: Launch) -> None:
    async with launch([("status", "running"), ("STOP", {})]) as vm:
        await vm.run()
        await vm.pause()
        await vm.run()
        assert not vm.exited.done()


async def test_killed_by_someone_else(launch: Launch) -> None:
    async with launch([]) as vm:
        os.kill(vm.pid, signal.SIGKILL)
        assert await ended(vm) == Exit(Cause.QEMU, -signal.SIGKILL)


async def test_a_guest_that_cannot_be_reached_any_more(launch: Launch) -> None:
    async with launch([]) as vm:
        backend = Backend()
        await vm.add_vsock(backend, backend.prepare(10))
        await vm.run()
        backend.lose("the daemon ended")
        assert await ended(vm) == Exit(Cause.VSOCK, -signal.SIGKILL, "the daemon ended")
        assert backend.closed == 1


async def test_vsock_that_needs_shared_memory_is_refused_without(launch: Launch) -> None:
    async with launch([]) as vm:
        backend = Backend()
        backend.shared_memory = True
        with pytest.raises(StateError, match="needs a machine with shared memory"):
            await vm.add_vsock(backend, asyncio.get_running_loop().create_future())
        await backend.close(1)


async def test_without_vsock_nobody_calls(launch: Launch) -> None:
    async with launch([]) as vm:
        with pytest.raises(StateError, match="has no vsock"):
            await vm.control(1)
        with pytest.raises(StateError, match="has no vsock"):
            await vm.new_stream()


async def test_waiting_for_the_guest_ends_with_the_machine(launch: Launch) -> None:
    steps: Steps = [
        ("print", "Traceback of init"),
        ("print", "Kernel panic - not syncing: Attempted to kill init!"),
        ("print", "RAX: 0"),
        ("GUEST_PANICKED", {"action": "pause"}),
        ("exit", 0),
    ]
    async with launch(steps) as vm:
        backend = Backend()
        await vm.add_vsock(backend, backend.prepare(10))
        with contextlib.suppress(BootError):
            await vm.run()
        with pytest.raises(BootError) as caught:
            await vm.control(20)
        assert caught.value.message == (
            "the virtual machine failed while booting: the guest's kernel panicked; "
            "console: Traceback of init | Kernel panic - not syncing: Attempted to kill init!"
        )


async def test_a_qemu_that_ends_at_once_is_quoted_and_can_be_repeated(launch: Launch) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BootError) as caught:
        async with launch("exit"):
            pass
    assert caught.value.message == (
        "the virtual machine failed while starting QEMU: QEMU ended with exit status 1; its words: qemu: cannot do that"
    )
    assert caught.value.hint.startswith("repeat with: /")
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_qemu_that_says_nothing_is_killed(qemu: Path, credentials: Credentials, journal: Journal) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(BootError, match=r"failed while starting QEMU: QEMU did not greet within 0\.3 s"):
        await VirtualMachine.launch(
            Machine(qemu, qemu, qemu, Accel.TCG, 1, 128, kernel_args='steps="silent"'),
            name="qemubox-cafe",
            console_path=qemu.parent / "console",
            console_kib=16,
            credentials=credentials,
            journal=journal,
            timeline=Timeline(),
            command_timeout_s=0.3,
        )
    assert set(os.listdir("/proc/self/fd")) == before


async def test_without_a_kernel_nothing_is_started(qemu: Path, credentials: Credentials, journal: Journal) -> None:
    with pytest.raises(MissingPartError, match="/nonexistent: no such file"):
        await VirtualMachine.launch(
            Machine(qemu, Path("/nonexistent"), qemu, Accel.TCG, 1, 128),
            name="qemubox-cafe",
            console_path=qemu.parent / "console",
            console_kib=16,
            credentials=credentials,
            journal=journal,
            timeline=Timeline(),
            command_timeout_s=10,
        )
    assert journal.entries() == []


async def test_a_launch_that_is_cancelled_leaves_nothing(
    qemu: Path, credentials: Credentials, journal: Journal
) -> None:
    before = set(os.listdir("/proc/self/fd"))
    launching = VirtualMachine.launch(
        Machine(qemu, qemu, qemu, Accel.TCG, 1, 128, kernel_args='steps="silent"'),
        name="qemubox-cafe",
        console_path=qemu.parent / "console",
        console_kib=16,
        credentials=credentials,
        journal=journal,
        timeline=Timeline(),
        command_timeout_s=10,
    )
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(launching, 0.3)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_devices_of_both_kinds_and_their_errors(launch: Launch, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(bytes(512))
    async with launch([]) as vm:
        await vm.add_disk(Disk("layer0", layer))
        await vm.add_disk(JoinedDisk("layers", (bytes(512), layer)))
        await vm.resize_memory(0)
        with pytest.raises(HostError, match="has room for 0 MiB"):
            await vm.resize_memory(2)
        with pytest.raises(HostError, match="No such file"):
            await vm.add_disk(Disk("layer1", tmp_path / "missing"))
        with pytest.raises(StateError, match="only a running guest"):
            await vm.remove_device("layer0", 1)
