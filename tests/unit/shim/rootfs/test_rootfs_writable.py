"""The writable layer: an empty ext4 that costs nothing, made whole or not at all."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError, ResourceError
from shim.rootfs import writable

MKFS = writable.tool("mkfs.ext4", 30)
GIB = 1 << 30


@pytest.mark.parametrize("size_mib", [16, 17, 100, 1024, 10240, 131072])
async def test_a_clean_file_system_of_any_size(tmp_path: Path, size_mib: int) -> None:
    path = tmp_path / "w"
    await writable.make(MKFS, path, size_mib << 20)
    assert path.stat().st_size == size_mib << 20
    assert path.stat().st_blocks * 512 < max(1 << 20, size_mib << 7)
    assert path.stat().st_mode & 0o777 == 0o600
    await _output("e2fsck", "-fn", str(path))
    assert os.listdir(tmp_path) == ["w"]


async def test_what_the_guest_gets(tmp_path: Path) -> None:
    path = tmp_path / "w"
    years = {time.strftime("%Y")}
    await writable.make(MKFS, path, 10 * GIB, uuid="01234567-89ab-cdef-0123-456789abcdef")
    text = await _output("dumpe2fs", str(path))
    assert "Filesystem UUID:          01234567-89ab-cdef-0123-456789abcdef" in text
    assert "Reserved block count:     0" in text
    assert "Total journal size:       32M" in text
    features = next(line for line in text.splitlines() if line.startswith("Filesystem features:"))
    assert "has_journal" in features
    assert "metadata_csum" in features
    assert "resize_inode" not in features
    assert "orphan_file" not in features
    created = next(line for line in text.splitlines() if line.startswith("Filesystem created:"))
    assert created.split()[-1] in years | {time.strftime("%Y")}
    assert text.count("ITABLE_ZEROED") == 80  # so the guest does not write 160 MiB of zeros later


async def _output(*words: str) -> str:
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize(("size_bytes", "mib"), [(16 << 20, 4), (256 << 20, 8), (GIB, 32), (1 << 44, 32)])
def test_the_journal_grows_with_the_file_system(size_bytes: int, mib: int) -> None:
    assert writable.journal_mib(size_bytes) == mib


async def test_what_is_there_already_stays(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_text("somebody's data")
    await writable.make(MKFS, path, GIB)
    assert path.read_text() == "somebody's data"
    assert os.listdir(tmp_path) == ["w"]


async def test_many_at_once_make_one(tmp_path: Path) -> None:
    path = tmp_path / "w"
    await asyncio.gather(*(writable.make(MKFS, path, GIB) for _ in range(4)))
    assert os.listdir(tmp_path) == ["w"]


async def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "w.making").write_bytes(os.urandom(100000))
    await writable.make(MKFS, tmp_path / "w", GIB)
    await _output("e2fsck", "-fn", str(tmp_path / "w"))
    assert os.listdir(tmp_path) == ["w"]


async def test_a_full_disk(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1000 << 10))
    with pytest.raises(ResourceError, match=f"no room to format {small_disk}/w.making with 1073741824 bytes"):
        await writable.make(MKFS, small_disk / "w", GIB)
    assert os.listdir(small_disk) == ["filler"]


async def test_a_size_beyond_the_host_s_file_system(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"w: File too large .*writable_mib"):
        await writable.make(MKFS, tmp_path / "w", 1 << 62)
    assert os.listdir(tmp_path) == []


async def test_a_size_too_small_is_said_by_mkfs(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"mkfs\.ext4 could not format .* with 4096 bytes: "):
        await writable.make(MKFS, tmp_path / "w", 4096)
    assert os.listdir(tmp_path) == []


async def test_no_mkfs_and_no_directory(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=r"mkfs\.none: no such program \(apt-get install e2fsprogs\)"):
        await writable.make(writable.tool("mkfs.none", 1), tmp_path / "w", GIB)
    assert os.listdir(tmp_path) == []
    with pytest.raises(HostError, match="No such file or directory"):
        await writable.make(MKFS, tmp_path / "nowhere" / "w", GIB)
