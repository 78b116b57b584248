"""The accelerator: what is said of each choice, and what would bring KVM. The boots themselves: vm/test_check.py."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim import hypervisor
from shim.check import accelerator
from shim.config import Config
from shim.errors import BootError, MissingPartError, QemuboxError
from shim.hypervisor import Hypervisor
from shim.journal import Journal
from shim.vm.accel import Verdict
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.vsock import LinkMode
from tests.unit.shim.check.conftest import FakeHost, Say


class Choice:
    """In the place of choosing and booting: what comes of both, and with what they were called."""

    def __init__(self, fake: FakeHost, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.accel = Accel.KVM
        self.error: QemuboxError | None = None
        self.boot_error: QemuboxError | None = None
        self.remembered: Verdict | None = None
        self.state_dirs: list[str] = []
        fake.host.directory, fake.host.journal = directory, Journal(directory)
        monkeypatch.setattr(hypervisor, "choose", self._choose)
        monkeypatch.setattr(accelerator, "booted", self._booted)
        monkeypatch.setattr(accelerator, "remembered", lambda *_, **__: self.remembered)

    async def _choose(self, config: Config, *_: object) -> Hypervisor:
        self.state_dirs.append(config.runtime.state_dir)
        if self.error:
            raise self.error
        machine = Machine(Path("/q"), Path("/k"), Path("/i"), self.accel, max_vcpus=1, max_memory_mib=128)
        return Hypervisor(machine, None, LinkMode.SERIAL, Credentials(1, 1), "the reason")

    @contextlib.asynccontextmanager
    async def _booted(self, *_: object) -> AsyncIterator[None]:
        if self.boot_error:
            raise self.boot_error
        yield


@pytest.fixture
def choice(fake: FakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Choice:
    return Choice(fake, tmp_path, monkeypatch)


async def test_kvm(choice: Choice, fake: FakeHost, tmp_path: Path, say: Say) -> None:
    """It is tried anew: nothing that shims have remembered is looked at."""
    said = await say(accelerator.look)
    assert said.told("accelerator") == ("ok", "KVM: the reason", "")
    assert said.told("boot")[0] == "ok"
    assert choice.state_dirs == [str(tmp_path)]
    assert fake.host.hypervisor is not None


async def test_tcg_is_a_warning(choice: Choice, say: Say) -> None:
    choice.accel = Accel.TCG
    found = (await say(accelerator.look)).told("accelerator")
    assert found[:2] == ("warning", "TCG, slow, and no security boundary: the reason")
    assert "firmware" in found[2]


async def test_tcg_that_is_wanted_is_a_warning_too(choice: Choice, fake: FakeHost, say: Say) -> None:
    choice.accel = Accel.TCG
    fake.configure("vm", accel="tcg")
    assert (await say(accelerator.look)).told("accelerator")[2].startswith('set vm.accel = "auto"')


async def test_what_cannot_be_chosen(choice: Choice, fake: FakeHost, say: Say) -> None:
    choice.error = MissingPartError("no KVM, and vm.allow_tcg is false: why", hint="do this")
    assert [(line.level, line.mend) for line in await say(accelerator.look)] == [("failure", "do this")]
    assert fake.host.hypervisor is None


async def test_what_does_not_boot_can_be_repeated(choice: Choice, say: Say) -> None:
    choice.boot_error = BootError("booting: it panicked")
    found = (await say(accelerator.look)).told("boot")
    assert found[:2] == ("failure", "booting: it panicked")
    assert found[2].startswith("by hand: /q ")


@pytest.mark.parametrize(
    ("accel", "known", "told"),
    [(Accel.KVM, False, True), (Accel.TCG, True, True), (Accel.KVM, True, False), (Accel.TCG, None, False)],
)
async def test_what_shims_have_remembered(
    accel: Accel, known: bool | None, told: bool, choice: Choice, say: Say
) -> None:
    """Where it was found out before something changed that they do not look at."""
    choice.accel = accel
    choice.remembered = None if known is None else Verdict(known, "it was so")
    found = [line for line in await say(accelerator.look) if "found before: it was so" in line.found]
    assert [line.mend for line in found] == (["rm /run/qemubox/accel-*.json"] if told else [])


@pytest.mark.parametrize(
    ("device", "accel", "allow_tcg", "level"),
    [
        (True, "auto", True, "ok"),
        (False, "auto", True, "warning"),
        (False, "auto", False, "failure"),
        (False, "kvm", True, "failure"),
        (True, "tcg", True, "warning"),
    ],
)
async def test_quick(
    device: bool, accel: str, allow_tcg: bool, level: str, choice: Choice, fake: FakeHost, say: Say
) -> None:
    """Nothing is booted, nor chosen."""
    fake.host.quick = True
    if device:
        fake.put("/dev/kvm")
    fake.configure("vm", accel=accel, allow_tcg=allow_tcg)
    assert [line.level for line in await say(accelerator.look)] == [level]
    assert choice.state_dirs == []


@pytest.mark.parametrize(
    ("flags", "module", "mend"),
    [
        ("fpu vmx sse", "kvm_intel", "modprobe kvm_intel"),
        ("fpu svm sse", "kvm_amd", "modprobe kvm_amd"),
        ("fpu svm sse", "", "use a kernel with kvm_amd"),
        ("fpu sse svm_lock avmx", "kvm_amd", accelerator._IN_FIRMWARE),
    ],
)
def test_what_would_bring_kvm(flags: str, module: str, mend: str, fake: FakeHost) -> None:
    fake.put("/proc/cpuinfo", f"processor : 0\nflags\t\t: {flags}\nbugs\t\t:\n\n")
    if module:
        fake.put(f"/sys/module/{module}/x")
    assert accelerator.mend(fake.host) == mend


def test_a_device_that_does_not_work(fake: FakeHost) -> None:
    fake.put("/dev/kvm").chmod(0o666)
    assert "nested virtualization" in accelerator.mend(fake.host)


@pytest.mark.parametrize(("mode", "group", "closed"), [(0o600, 0, True), (0o660, 0, True), (0o660, 109, False)])
def test_a_device_that_qemu_may_not_open(mode: int, group: int, closed: bool, fake: FakeHost) -> None:
    device = fake.put("/dev/kvm")
    device.chmod(mode)
    os.chown(device, 0, group)
    assert ("chmod 660 /dev/kvm" in accelerator.mend(fake.host)) is closed
