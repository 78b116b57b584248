"""What a shim leaves in its directory for commands is root's alone: whose containers run is nobody else's business."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim import inspection
from shim.copy import address


@pytest.fixture(autouse=True)
def nothing_masked() -> Iterator[None]:
    """The umask is that of whoever has started containerd."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_where_it_listens(tmp_path: Path) -> None:
    address.write(tmp_path, address.Address("default", "c", "/bundle", "/socket"))
    assert stat.S_IMODE((tmp_path / address.FILE_NAME).stat().st_mode) == 0o600


def test_what_its_machine_is(tmp_path: Path) -> None:
    shown = inspection.Inspection(
        namespace="default",
        id="c",
        shim_pid=1,
        qemu_pid=2,
        template="",
        memory="booted",
        memory_shared=False,
        link="serial",
        accelerator="kvm",
        vcpus=1,
        host_cpus="",
        base_memory_mib=128,
        memory_mib=512,
        disks={},
        netns="",
        interfaces={},
        console="/console",
    )
    inspection.write(tmp_path, shown)
    assert stat.S_IMODE((tmp_path / inspection.FILE_NAME).stat().st_mode) == 0o600
