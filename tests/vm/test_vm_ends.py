"""How a machine ends or never comes up, and what its processes may do and leave behind."""

import asyncio
import os
import secrets
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.flavours import CHECKOUT
from harness.machine import BOOT_S, QEMU, Parts, Start, processes
from shim.errors import BootError
from shim.vm.states import Cause, Exit

pytestmark = pytest.mark.timeout(240)


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


@pytest.mark.release
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


@pytest.mark.release
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
    backend = UserVsock(daemon=pathlib.Path(daemon), directory=directory / "vsock", credentials=user, journal=journal)
    await vm.add_vsock(backend, backend.prepare(30))
    await vm.run()
    print(vm.pid, backend._process.pid, flush=True)
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
    assert processes(directory.name) == []


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
