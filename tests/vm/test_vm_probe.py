"""The probe of KVM: what it takes for a proof, and that its answer is true and remembered."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.machine import BOOT_S, Parts, processes
from shim.journal import Journal
from shim.vm import accel
from shim.vm.machine import Accel

pytestmark = pytest.mark.timeout(240)


async def test_the_probe_believes_a_kernel_that_looked_for_its_first_process(parts: Parts, work: Path) -> None:
    """Under TCG, to show what it takes for a proof on any machine."""
    machine = replace(parts.machine, shared_memory=False, kernel_args="")
    for arguments, usable in (("", True), ("root=/dev/nonexistent", False)):
        verdict = await accel._try(
            machine.with_kernel_args(arguments), work / "probe", parts.credentials, Journal(work), BOOT_S
        )
        assert verdict.usable is usable, verdict
    assert processes("qemubox-probe") == []


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
