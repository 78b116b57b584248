"""The guest's kernel, booted, gives what containers need: tried by a probe that runs as PID 1, not read from a list."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.qemubox import built_parts
from shim.rootfs.gpt import table

PROBE = Path(__file__).with_name("guest_kernel_probe.py")
BOOT_S = 100
KERNEL_ARGS = (
    "console=ttyS0 loglevel=4 panic=-1 root=/dev/vda rootfstype=erofs ro no_timer_check lpj=5000000 "
    "init=/usr/bin/python3.13 -- -ISB /dev/vdb"
)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="qemubox-kernel-") as name:
        yield Path(name)


def padded(data: bytes, fill: bytes = b"\0") -> bytes:
    return data + fill * (-len(data) % 4096)


def erofs(work: Path, name: str, *options: str) -> bytes:
    tree = work / "tree"
    tree.mkdir(exist_ok=True)
    (tree / "words").write_text("words " * 10000)
    subprocess.run(["mkfs.erofs", "--quiet", *options, work / name, tree], check=True, capture_output=True, timeout=30)
    return padded((work / name).read_bytes())


def disks(work: Path, image: str) -> list[str]:
    """QEMU's arguments for the disks, in the order of their letters on a machine that was not hot-plugged."""
    (work / "probe").write_bytes(padded(PROBE.read_bytes(), b"\n"))
    (work / "ext4").touch()
    os.truncate(work / "ext4", 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", work / "ext4"], check=True, timeout=30)
    layers = [erofs(work, "compressed", "-zlz4hc"), erofs(work, "plain")]
    around = table([len(layer) for layer in layers])
    (work / "layers").write_bytes(around.head + b"".join(layers) + around.tail)
    arguments = []
    for number, file in enumerate((image, work / "probe", work / "ext4", work / "layers")):
        arguments += ["-drive", f"if=none,id=disk{number},file={file},format=raw,snapshot=on"]
        arguments += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    return arguments


@pytest.fixture(scope="module")
def console(work: Path) -> str:
    """What the probe said, with whatever the kernel complained about."""
    kernel, image, _ = built_parts()
    command = [
        "qemu-system-x86_64",
        "-name",
        "qemubox-test-kernel",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]
    command += ["-no-reboot", "-M", "q35,accel=tcg,vmport=off,smbus=off,sata=off,usb=off", "-cpu", "max,-erms"]
    command += ["-m", "256M", "-smp", "2", "-kernel", str(kernel), "-append", KERNEL_ARGS, *disks(work, str(image))]
    command += ["-device", "virtio-rng-pci", "-serial", "stdio"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=BOOT_S).stdout


@pytest.mark.timeout(BOOT_S + 60)
def test_everything_that_containers_need_works(console: str) -> None:
    lines = console.splitlines()
    assert [line for line in lines if line.startswith("FAIL")] == []
    passed = [line for line in lines if line.startswith("ok ")]
    assert f"probed {len(passed)}" in lines, console
    assert len(passed) == PROBE.read_text().count("\n@check\n")


def test_the_kernel_has_nothing_to_complain_about(console: str) -> None:
    assert [line for line in console.splitlines() if "WARNING" in line or "BUG" in line or "Oops" in line] == []
