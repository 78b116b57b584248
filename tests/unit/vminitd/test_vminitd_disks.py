"""Disks are found by serial and partition; a layer's options become mount(2)'s."""

import asyncio
import socket
from pathlib import Path

import pytest

from vminitd import disks
from vminitd.disks import Layer, devices_of, find, find_partition
from vminitd.errors import RequestError
from vminitd.layers import mount_options
from vminitd.libc import MS_NOATIME, MS_NODEV, MS_RDONLY
from vminitd.uevent import Uevents


@pytest.fixture
def sys_block(tmp_path: Path) -> str:
    for disk, serial, parts in (
        ("vda", "system", 0),
        ("vdc", "layer0", 0),
        ("vdb", "joined", 12),
        ("loop0", "layer0", 0),
    ):
        (tmp_path / disk).mkdir()
        (tmp_path / disk / "serial").write_text(serial)
        (tmp_path / disk / "size").write_text("8\n")
        for number in range(1, parts + 1):
            (tmp_path / disk / f"{disk}{number}").mkdir()
    (tmp_path / "vdz").mkdir()  # just being unplugged: no attributes any more
    return str(tmp_path)


def test_a_disk_by_its_serial(sys_block: str) -> None:
    assert find("layer0", 0, sys_block) == "vdc"
    assert find("system", 0, sys_block) == "vda"


def test_a_drive_whose_disk_is_not_there_yet(sys_block: str) -> None:
    """It is known by its size."""
    assert find("layer0", 4096, sys_block) == "vdc"
    assert find("layer0", 8192, sys_block) is None


def test_a_partition_of_a_disk(sys_block: str) -> None:
    assert find_partition("vdb", 0, sys_block) == "vdb"
    assert find_partition("vdb", 12, sys_block) == "vdb12"
    assert find_partition("vdb", 13, sys_block) is None


async def test_each_disk_is_looked_for_once_however_many_layers_are_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred looks took most of the time of a hundred layers. The table of partitions is read once, too."""
    looked: list[str] = []
    partitions = {"vda": 0, "vdb": 100, "vdc": 0}

    def look(serial: str, size: int = 0) -> str | None:
        looked.append(serial)
        return {"plugged": "vda", "joined": "vdb", "rw": "vdc"}[serial]

    monkeypatch.setattr(disks, "find", look)
    monkeypatch.setattr(disks, "read_partitions", lambda disk: looked.append(f"table of {disk}"))
    monkeypatch.setattr(disks, "find_partition", lambda disk, n: f"{disk}{n}" if n <= partitions[disk] else None)
    wanted = [Layer("joined", number, "erofs", (), 4096) for number in (*range(2, 101), 1)]
    wanted += [Layer("plugged", 0, "erofs", ()), Layer("rw", 0, "ext4", (), 8192)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    uevents = Uevents(ours)
    try:
        found = await asyncio.wait_for(devices_of(uevents, wanted), 5)
    finally:
        uevents.close()
        theirs.close()
    assert found == [*(f"/dev/vdb{number}" for number in (*range(2, 101), 1)), "/dev/vda", "/dev/vdc"]
    assert sorted(looked) == ["joined", "plugged", "rw", "table of vdb"]


def test_a_disk_that_is_not_there(sys_block: str) -> None:
    assert find("layer", 0, sys_block) is None
    assert find("", 0, sys_block) is None or find("", 0, sys_block) == "vdz"


@pytest.mark.parametrize(
    ("fstype", "options", "flags", "data"),
    [
        ("erofs", [], MS_RDONLY, ""),
        ("erofs", ["ro", "loop"], MS_RDONLY, ""),
        ("erofs", ["dax=never"], MS_RDONLY, "dax=never"),
        ("ext4", [], 0, "discard"),
        ("ext4", ["rw", "loop"], 0, "discard"),
        ("ext4", ["nodiscard", "noatime"], MS_NOATIME, "nodiscard"),
        ("ext4", ["ro", "nodev", "noload"], MS_RDONLY | MS_NODEV, "noload"),
        ("xfs", ["nouuid"], 0, "nouuid,discard"),
        ("btrfs", ["ro"], MS_RDONLY, ""),
    ],
)
def test_mount_options(fstype: str, options: list[str], flags: int, data: str) -> None:
    assert mount_options(fstype, options) == (flags, data)


def test_another_file_system_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="'zfs', which is none of erofs, ext4, xfs and btrfs"):
        mount_options("zfs", [])


def test_a_layer_says_what_it_is() -> None:
    assert str(Layer("joined", 3, "erofs", ())) == "erofs on disk 'joined' partition 3"
    assert str(Layer("rw0", 0, "ext4", ())) == "ext4 on disk 'rw0'"
