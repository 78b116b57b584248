"""Templates: one that fits, none, one that is damaged, and whose they are."""

import os
from pathlib import Path

import pytest

from shim.check import templates
from shim.check.host import Host
from shim.config import Config
from shim.hypervisor import Hypervisor
from shim.template.choice import open_store
from shim.template.store import STATE, Made, Store, name_of
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.vsock import LinkMode
from tests.unit.shim.check.conftest import FakeHost, Say


@pytest.fixture
def machine(fake: FakeHost, tmp_path: Path) -> Machine:
    """The machine that was chosen, and a place for its template."""
    part = tmp_path / "part"
    part.write_text("x")
    fake.configure("runtime", cache_dir=str(tmp_path / "cache"))
    made = Machine(part, part, part, Accel.TCG, max_vcpus=1, max_memory_mib=128)
    fake.host.hypervisor = Hypervisor(made, None, LinkMode.SERIAL, Credentials(1, 1))
    return made


async def _build(config: Config, name: str) -> Store:
    async def make(_directory: Path, fd: int) -> Made:
        os.write(fd, b"state")
        return Made("7.2.22", 4)

    store = open_store(config)
    await store.build(name, make, 5)
    return store


async def test_one_that_fits(machine: Machine, fake: FakeHost, say: Say) -> None:
    await _build(fake.host.config, name_of(machine.fingerprint()))
    (line,) = await say(templates.look)
    assert line.level == "ok"
    assert line.found == f"{machine.fingerprint()[:12]}, made with QEMU 7.2.22, fits"


@pytest.mark.usefixtures("machine")
async def test_none(say: Say) -> None:
    (line,) = await say(templates.look)
    assert (line.level, line.mend) == ("warning", "qemubox template build")
    assert line.found.startswith("none: machines boot")


@pytest.mark.usefixtures("machine")
async def test_one_of_another_machine(fake: FakeHost, say: Say) -> None:
    await _build(fake.host.config, "0" * 64)
    (line,) = await say(templates.look)
    assert line.level == "warning"
    assert line.found.startswith("1 of other machines, and none of this one")


async def test_one_that_is_damaged(machine: Machine, fake: FakeHost, say: Say, tmp_path: Path) -> None:
    name = name_of(machine.fingerprint())
    await _build(fake.host.config, name)
    with (tmp_path / "cache/templates" / name / STATE).open("ab") as state:
        state.write(b"more")
    (line,) = await say(templates.look)
    assert (line.level, line.mend) == ("warning", "qemubox template build --again")


@pytest.mark.parametrize("built", [True, False])
async def test_each_namespace_its_own(built: bool, machine: Machine, fake: FakeHost, say: Say) -> None:
    fake.configure("template", mode="per-namespace")
    if built:
        await _build(fake.host.config, name_of(machine.fingerprint(), "k8s.io"))
    (line,) = await say(templates.look)
    assert line.level == ("ok" if built else "warning")
    assert not built or "k8s.io" in line.found


async def test_off(fake: FakeHost, say: Say) -> None:
    fake.configure("template", mode="off")
    assert [line.level for line in await say(templates.look)] == ["ok"]


async def test_without_a_machine_it_is_not_known(say: Say) -> None:
    (line,) = await say(templates.look)
    assert line.found == "not looked at: no machine can be made, as said above"


async def test_quick_looks_for_both_accelerators(
    machine: Machine, fake: FakeHost, say: Say, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await _build(fake.host.config, name_of(machine.fingerprint()))
    asked: list[str] = []

    async def both(_host: Host) -> list[Machine]:
        asked.append("")
        return [Machine(machine.qemu, machine.kernel, machine.image, Accel.KVM, 1, 128), machine]

    monkeypatch.setattr(templates, "_machines", both)
    fake.host.quick, fake.host.hypervisor = True, None
    assert [line.level for line in await say(templates.look)] == ["ok"]
    assert asked == [""]
