"""Whether KVM really works here.

A /dev/kvm that opens proves nothing, and neither does a few bytes of guest code that run:
on one machine 16-bit code ran to its end under KVM (2026-11, AMD EPYC, a virtual machine
itself), while QEMU with `-cpu host` aborted on an MSR, and with it masked the kernel of
the guest died of an instruction that KVM could not emulate. So the probe boots what
will be booted: the same machine, kernel and image, up to the point where the kernel has
mounted its root and looks for a first process, which we name so that there is none.
Then it panics, which is the proof. That takes 0.3 s where KVM works as it should.

The answer is remembered for this boot of the host, and for this machine (QEMU, kernel,
image, arguments, host kernel, processor) and these rights on /dev/kvm, in a file under
the runtime directory; a lock lets only one shim find out at a time.

What to do without KVM is the caller's decision: TCG runs everything, slowly, but QEMU's
own developers do not call it a security boundary (QEMU documentation, "Security").
"""

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Literal

from shim.errors import HostError, MachineError
from shim.journal import Journal
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.states import Cause
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine

KVM_DEVICE: Final = Path("/dev/kvm")
# The first process that the probe asks for. The kernel's last words quote it.
_NO_INIT: Final = "/qemubox-kvm-probe"
_CONSOLE_KIB: Final = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether KVM can be used, and why: one line for the log, or for the user's error."""

    usable: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The accelerator to use, and why."""

    accel: Accel
    reason: str


def kvm_groups() -> tuple[int, ...]:
    """The further group that QEMU's user needs for /dev/kvm: the device's, where that has rights; else none."""
    try:
        found = KVM_DEVICE.stat()
    except OSError:
        return ()
    allowed = found.st_mode & stat.S_IRGRP and found.st_mode & stat.S_IWGRP and found.st_gid != 0
    return (found.st_gid,) if allowed else ()


async def choose(
    wanted: Literal["auto", "kvm", "tcg"],
    machine: Machine,
    *,
    runtime_dir: Path,
    credentials: Credentials,
    journal: Journal,
    timeout_s: float,
) -> Choice:
    """The accelerator to use: what is asked for, and for "auto" KVM if it works.

    `machine` is what will be booted, with either accelerator; `timeout_s` bounds the
    probe's boot. What was asked for by name is not probed: it then fails or works by itself.
    """
    if wanted != "auto":
        return Choice(Accel(wanted), "the configuration says so")
    verdict = await probe(
        machine, runtime_dir=runtime_dir, credentials=credentials, journal=journal, timeout_s=timeout_s
    )
    return Choice(Accel.KVM if verdict.usable else Accel.TCG, verdict.reason)


async def probe(
    machine: Machine, *, runtime_dir: Path, credentials: Credentials, journal: Journal, timeout_s: float
) -> Verdict:
    """Whether KVM runs `machine`: remembered, or found out by booting it.

    `runtime_dir` exists and does not survive a reboot. `credentials` are those of real
    machines, `kvm_groups` included. Raises MissingPartError without QEMU, kernel or
    image, MachineError when another shim finds out for longer than twice `timeout_s`.
    """
    machine = _under_kvm(machine)
    if (memory := _memory(machine, runtime_dir, credentials)) is None:
        return Verdict(False, f"{KVM_DEVICE} is not there")
    if (known := _remembered(memory)) is not None:
        return known
    async with _locked(runtime_dir / "accel.lock", 2 * timeout_s):
        if (known := _remembered(memory)) is not None:
            return known
        console = memory.with_suffix(".console")
        try:
            verdict = await _try(machine, console, credentials, journal, timeout_s)
        finally:
            for path in (console, console.with_name(console.name + ".1")):
                path.unlink(missing_ok=True)
        _remember(memory, verdict)
    return verdict


def remembered(machine: Machine, *, runtime_dir: Path, credentials: Credentials) -> Verdict | None:
    """What `probe` would answer without booting anything; None where it would have to."""
    memory = _memory(_under_kvm(machine), runtime_dir, credentials)
    return None if memory is None else _remembered(memory)


def _under_kvm(machine: Machine) -> Machine:
    model = "" if machine.accel is Accel.TCG else machine.cpu_model
    return replace(machine, accel=Accel.KVM, cpu_model=model, shared_memory=False)


def _memory(machine: Machine, runtime_dir: Path, credentials: Credentials) -> Path | None:
    """Where the answer for that machine is, or will be; None without the device, which needs no memory."""
    if (rights := _rights()) is None:
        return None
    # Not the user's id, of which each machine may have one of its own: it is no one whom a device belongs to.
    facts = (_boot_id(), machine.fingerprint(), rights, credentials.gid, credentials.groups)
    return runtime_dir / f"accel-{hashlib.sha256(repr(facts).encode()).hexdigest()[:24]}.json"


async def _try(
    machine: Machine, console: Path, credentials: Credentials, journal: Journal, timeout_s: float
) -> Verdict:
    """Boot the machine to where its kernel wants a first process."""
    timeline = Timeline()
    for path in (console, console.with_name(console.name + ".1")):
        journal.record("path", path=str(path))
    vm = None
    try:
        vm = await VirtualMachine.launch(
            machine.with_kernel_args(f"init={_NO_INIT}"),
            name=f"qemubox-{console.stem}",
            console_path=console,
            console_kib=_CONSOLE_KIB,
            credentials=credentials,
            journal=journal,
            timeline=timeline,
            command_timeout_s=timeout_s,
        )
        await vm.run()
        ended, _ = await asyncio.wait((vm.exited,), timeout=timeout_s)
        timeline.mark("ended")
        if not ended:
            return Verdict(False, f"KVM did not get the guest's kernel to its first process within {timeout_s:g} s")
        how = vm.exited.result()
        if how.cause in (Cause.PANIC, Cause.RESET) and any(_NO_INIT in line for line in vm.console.tail(1)):
            return Verdict(True, f"KVM booted the guest's kernel in {timeline.milliseconds()['ended'] / 1000:.1f} s")
        return Verdict(False, f"KVM does not run the guest's kernel: {how}{_words(vm)}")
    except MachineError as error:
        return Verdict(False, f"KVM is not usable: {error.message}")
    finally:
        if vm is not None:
            await vm.kill(timeout_s)


def _words(vm: VirtualMachine) -> str:
    """QEMU's first words; those on a failed instruction are followed by pages of registers."""
    return f" ({vm.stderr.splitlines()[0]})" if vm.stderr else ""


def _rights() -> tuple[int, int, int, int] | None:
    """Who may use /dev/kvm; None if it is not there."""
    try:
        found = KVM_DEVICE.stat()
    except OSError:
        return None
    return found.st_rdev, found.st_mode, found.st_uid, found.st_gid


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _remembered(path: Path) -> Verdict | None:
    try:
        known = json.loads(path.read_text())
        return Verdict(bool(known["usable"]), str(known["reason"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or not ours: find out again
        return None


def _remember(path: Path, verdict: Verdict) -> None:
    """Write in full, then rename: a reader sees all of it or nothing."""
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(asdict(verdict)))
        part.rename(path)
    except OSError as error:
        raise HostError(f"{path} cannot be written: {error.strerror}") from error


@contextlib.asynccontextmanager
async def _locked(path: Path, timeout_s: float) -> AsyncIterator[None]:
    """Hold an exclusive flock(2) on a file. Raises MachineError when another holds it for too long."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    locking = asyncio.get_running_loop().run_in_executor(None, fcntl.flock, fd, fcntl.LOCK_EX)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(locking)
    except BaseException as error:
        # The thread still waits on the descriptor: it must not be closed, and reused, under it.
        locking.add_done_callback(lambda _: os.close(fd))
        if isinstance(error, TimeoutError):
            raise MachineError(f"another shim finds out about KVM for more than {timeout_s:g} s") from None
        raise
    try:
        yield
    finally:
        os.close(fd)
