"""QEMU by scripts in its place, and the real one."""

import os
from pathlib import Path

import pytest

from shim.check import qemu
from tests.unit.shim.check.conftest import FakeHost, Say

_HELP = (
    'case "$*" in\n*--version*) echo "QEMU emulator version {version} (Debian)" ;;\n*"-device help"*) {devices} ;;\n'
    '*"-machine help"*) echo "q35   Standard PC" ;;\nesac'
)


def _qemu(fake: FakeHost, version: str = "7.2.22", without: str = "", machines: bool = True) -> None:
    names = sorted({*qemu.needed(fake.host, Path("/q")), "vhost-user-fs-pci"} - {without})
    devices = "; ".join(f"""echo 'name "{name}", bus PCI'""" for name in names)
    script = _HELP.format(version=version, devices=devices)
    fake.program("qemu-system-x86_64", script if machines else script.replace("q35", "pc"))


async def test_one_that_has_everything(fake: FakeHost, say: Say) -> None:
    _qemu(fake)
    said = await say(qemu.look)
    assert [(line.level, line.found) for line in said] == [
        ("ok", "QEMU 7.2.22"),
        ("ok", "all that a machine may have"),
    ]


async def test_none(say: Say) -> None:
    said = await say(qemu.look)
    assert said.told("vm.qemu = 'qemu-system-x86_64'") == (
        "failure",
        "no such program",
        "apt-get install qemu-system-x86",
    )


@pytest.mark.parametrize(("version", "level"), [("7.1.0", "failure"), ("7.2.0", "ok"), ("10.0.2", "ok")])
async def test_versions(version: str, level: str, fake: FakeHost, say: Say) -> None:
    _qemu(fake, version)
    assert (await say(qemu.look))[0].level == level


@pytest.mark.parametrize(
    ("device", "level"),
    [("virtio-mem-pci", "failure"), ("virtio-net-pci", "failure"), ("vhost-user-fs-pci", "warning")],
)
async def test_a_device_that_is_missing_is_named(device: str, level: str, fake: FakeHost, say: Say) -> None:
    _qemu(fake, without=device)
    found = (await say(qemu.look)).told("devices")
    assert found[0] == level
    assert f"this QEMU has no {device}" in found[1]


async def test_no_machine_of_our_kind(fake: FakeHost, say: Say) -> None:
    _qemu(fake, machines=False)
    assert (await say(qemu.look))[-1].found == "this QEMU has no machine q35"


@pytest.mark.parametrize("script", ["exit 1", "echo something else", "echo 'QEMU emulator version 9.0.0'; exit 1"])
async def test_what_is_no_qemu(script: str, fake: FakeHost, say: Say) -> None:
    fake.program("qemu-system-x86_64", script)
    said = await say(qemu.look)
    assert [line.level for line in said] == ["failure"]


def test_what_is_needed_depends_on_the_way_to_the_guest(fake: FakeHost) -> None:
    fake.configure("vsock", mode="serial")
    serial = qemu.needed(fake.host, Path("/q"))
    assert {"virtio-blk-pci", "virtio-serial-pci", "virtserialport", "pvpanic", "virtio-mem-pci"} <= serial
    fake.configure("vsock", mode="user")
    assert qemu.needed(fake.host, Path("/q")) - serial == {"vhost-user-vsock-pci"}


async def test_the_real_one(fake: FakeHost, say: Say) -> None:
    fake.host.environ = {"PATH": os.environ["PATH"]}
    said = await say(qemu.look)
    assert {line.level for line in said} == {"ok"}
