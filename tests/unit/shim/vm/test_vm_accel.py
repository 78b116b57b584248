"""The choice of an accelerator: remembered, shared between shims, and what it says."""

import asyncio
import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from shim.errors import MachineError
from shim.journal import Journal
from shim.vm import accel
from shim.vm.accel import Verdict, choose, kvm_groups, probe, remembered
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    part = tmp_path / "part"
    part.write_text("#!/bin/sh\necho it does not start >&2\nexit 1\n")
    part.chmod(0o755)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    return Machine(part, part, part, Accel.TCG, max_vcpus=1, max_memory_mib=128)


@pytest.fixture
def kvm_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something in the place of /dev/kvm."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accel, "KVM_DEVICE", device)
    return device


class Probe:
    """Calls `probe` in one runtime directory and counts how often a machine is booted for it."""

    def __init__(self, directory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "run"
        self.directory.mkdir()
        self.boots = 0
        self.verdict = Verdict(True, "it works")
        self._journal = journal
        monkeypatch.setattr(accel, "_try", self._boot)

    async def _boot(self, *_: object) -> Verdict:
        self.boots += 1
        await asyncio.sleep(0)
        return self.verdict

    async def __call__(self, machine: Machine, *, uid: int = 65534, timeout_s: float = 10) -> Verdict:
        return await probe(
            machine,
            runtime_dir=self.directory,
            credentials=Credentials(uid, uid),
            journal=self._journal,
            timeout_s=timeout_s,
        )


@pytest.fixture
def counted(tmp_path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(tmp_path, journal, monkeypatch)


@pytest.mark.parametrize("wanted", ["kvm", "tcg"])
async def test_what_is_asked_for_by_name_is_not_probed(
    wanted: str, machine: Machine, counted: Probe, journal: Journal
) -> None:
    choice = await choose(
        Accel(wanted).value,
        machine,
        runtime_dir=counted.directory,
        credentials=Credentials(0, 0),
        journal=journal,
        timeout_s=1,
    )
    assert choice.accel is Accel(wanted)
    assert counted.boots == 0


@pytest.mark.parametrize("usable", [True, False])
async def test_auto_follows_the_probe(
    usable: bool, machine: Machine, counted: Probe, kvm_device: Path, journal: Journal
) -> None:
    counted.verdict = Verdict(usable, "because")
    choice = await choose(
        "auto",
        machine,
        runtime_dir=counted.directory,
        credentials=Credentials(0, 0),
        journal=journal,
        timeout_s=1,
    )
    assert (choice.accel, choice.reason) == (Accel.KVM if usable else Accel.TCG, "because")


async def test_the_answer_is_remembered(machine: Machine, counted: Probe, kvm_device: Path) -> None:
    assert await counted(machine) == await counted(machine) == Verdict(True, "it works")
    assert counted.boots == 1
    assert sorted(path.suffix for path in counted.directory.iterdir()) == [".json", ".lock"]


async def test_the_same_machine_under_the_other_accelerator_has_the_same_answer(
    machine: Machine, counted: Probe, kvm_device: Path
) -> None:
    await counted(machine)
    await counted(replace(machine, accel=Accel.KVM))
    await counted(replace(machine, shared_memory=True))
    assert counted.boots == 1


async def test_another_machine_user_right_or_boot_is_another_question(
    machine: Machine, counted: Probe, kvm_device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await counted(machine)
    await counted(replace(machine, max_vcpus=2))
    await counted(machine, uid=65533)
    kvm_device.chmod(0o666)
    await counted(machine)
    machine.qemu.write_text("another QEMU")
    await counted(machine)
    monkeypatch.setattr(accel, "_boot_id", lambda: "another boot")
    await counted(machine)
    assert counted.boots == 6


async def test_many_at_once_boot_one_machine(machine: Machine, counted: Probe, kvm_device: Path) -> None:
    answers = await asyncio.gather(*(counted(machine) for _ in range(8)))
    assert set(answers) == {Verdict(True, "it works")}
    assert counted.boots == 1


async def test_a_broken_memory_is_found_out_again(machine: Machine, counted: Probe, kvm_device: Path) -> None:
    await counted(machine)
    for text in ("", "[]", "{}", json.dumps({"usable": 1})):
        next(counted.directory.glob("*.json")).write_text(text)
        assert await counted(machine) == Verdict(True, "it works")
    assert counted.boots == 5


async def test_another_shim_that_takes_for_ever(machine: Machine, counted: Probe, kvm_device: Path) -> None:
    with (counted.directory / "accel.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match=r"another shim finds out about KVM for more than 0\.1 s"):
            await counted(machine, timeout_s=0.05)
    assert counted.boots == 0


async def test_without_the_device_nothing_is_booted(
    machine: Machine, counted: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "KVM_DEVICE", Path("/nonexistent/kvm"))
    assert await counted(machine) == Verdict(False, "/nonexistent/kvm is not there")
    assert counted.boots == 0
    assert kvm_groups() == ()


async def test_a_qemu_that_does_not_start_is_quoted_and_leaves_nothing(
    machine: Machine, tmp_path: Path, journal: Journal, kvm_device: Path
) -> None:
    runtime_dir = tmp_path / "run"
    runtime_dir.mkdir()
    verdict = await probe(
        machine, runtime_dir=runtime_dir, credentials=Credentials(65534, 65534), journal=journal, timeout_s=10
    )
    assert not verdict.usable
    assert "it does not start" in verdict.reason
    assert sorted(path.suffix for path in runtime_dir.iterdir()) == [".json", ".lock"]


@pytest.mark.parametrize(
    ("mode", "gid", "groups"), [(0o660, 107, (107,)), (0o600, 107, ()), (0o640, 107, ()), (0o660, 0, ())]
)
def test_the_group_of_the_device(kvm_device: Path, mode: int, gid: int, groups: tuple[int, ...]) -> None:
    os.chown(kvm_device, 0, gid)
    kvm_device.chmod(mode)
    assert kvm_groups() == groups


@pytest.mark.usefixtures("kvm_device")
async def test_what_is_remembered_can_be_asked_for(machine: Machine, counted: Probe) -> None:
    """Nothing is booted for that, whatever accelerator the machine has."""
    assert remembered(machine, runtime_dir=counted.directory, credentials=Credentials(1, 65534)) is None
    found = await counted(machine)
    for each in (machine, replace(machine, accel=Accel.KVM, shared_memory=True)):
        assert remembered(each, runtime_dir=counted.directory, credentials=Credentials(1, 65534)) == found
    assert counted.boots == 1


def test_without_a_device_nothing_is_remembered(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "KVM_DEVICE", tmp_path / "none")
    assert remembered(machine, runtime_dir=tmp_path, credentials=Credentials(1, 1)) is None
