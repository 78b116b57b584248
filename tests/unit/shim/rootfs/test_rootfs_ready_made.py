"""Ready-made empty file systems: what is copied is what mkfs made, and little of it."""

import asyncio
import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from shim.errors import MissingPartError, ResourceError
from shim.journal import Journal
from shim.rootfs import ready_made, writable
from shim.rootfs.ready_made import ReadyMade

_MKFS = writable.tool("mkfs.ext4", 30)
_GIB = 1 << 30


def _ready(root: Path, mkfs: str = "mkfs.ext4") -> ReadyMade:
    return ReadyMade(root / "empty", writable.tool(mkfs, 30), Journal(root))


@pytest.mark.parametrize("size_mib", [16, 1024, 10240, 131072])
async def test_a_copy_is_a_clean_file_system_and_sparse(tmp_path: Path, size_mib: int) -> None:
    for name in ("a", "b"):
        path = tmp_path / name
        await _ready(tmp_path).copy(path, size_mib << 20)
        status = path.stat()
        assert (status.st_size, status.st_mode & 0o777) == (size_mib << 20, 0o600)
        assert status.st_blocks <= (tmp_path / "empty" / f"{size_mib << 20}.ext4").stat().st_blocks
        subprocess.run(["e2fsck", "-fn", path], check=True, capture_output=True)  # noqa: ASYNC221
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "empty", "journal"]


async def test_it_is_what_mkfs_made(tmp_path: Path) -> None:
    await _ready(tmp_path).copy(tmp_path / "a", 64 << 20)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "empty" / f"{64 << 20}.ext4").read_bytes()


async def test_mkfs_runs_once_for_each_size(tmp_path: Path) -> None:
    await asyncio.gather(*(_ready(tmp_path).copy(tmp_path / f"{number}", _GIB) for number in range(4)))
    await _ready(tmp_path, mkfs="mkfs.none").copy(tmp_path / "again", _GIB)
    with pytest.raises(MissingPartError):
        await _ready(tmp_path, mkfs="mkfs.none").copy(tmp_path / "other", 2 * _GIB)
    assert os.listdir(tmp_path / "empty") == [f"{_GIB}.ext4"]


async def test_few_sizes_are_kept(tmp_path: Path) -> None:
    for size_mib in range(16, 36):
        await _ready(tmp_path).copy(tmp_path / "a", size_mib << 20)
    names = {f"{size_mib << 20}.ext4" for size_mib in range(20, 36)}
    assert set(os.listdir(tmp_path / "empty")) == names


async def test_what_a_killed_maker_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / f"{_GIB}.ext4.making").write_bytes(os.urandom(100000))
    (tmp_path / "a.making").write_bytes(os.urandom(100000))
    await _ready(tmp_path).copy(tmp_path / "a", _GIB)
    subprocess.run(["e2fsck", "-fn", tmp_path / "a"], check=True, capture_output=True)  # noqa: ASYNC221
    assert Journal(tmp_path).entries() == [{"kind": "draft", "path": str(tmp_path / "empty" / f"{_GIB}.ext4.making")}]


async def test_one_that_is_called_off_reads_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread goes on: what it reads must not be closed, and its number another file's, meanwhile."""
    await _ready(tmp_path).copy(tmp_path / "a", 64 << 20)
    begun, go_on, over = asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    read: list[int] = []

    def slow(source: int, _target: int) -> None:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)
        with contextlib.suppress(OSError):
            read.append(os.fstat(source).st_size)
        loop.call_soon_threadsafe(over.set)

    monkeypatch.setattr(ready_made, "_copy_data", slow)
    copying = asyncio.create_task(_ready(tmp_path).copy(tmp_path / "b", 64 << 20))
    await begun.wait()
    copying.cancel()
    await asyncio.wait([copying])
    go_on.set()
    await over.wait()
    assert read == [64 << 20]


async def test_two_may_clean_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, what: [path / "removed.ext4", *glob(path, what)])
    await _ready(tmp_path).copy(tmp_path / "a", 64 << 20)
    assert (tmp_path / "a").exists()


async def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(1020 << 10))
    with pytest.raises(ResourceError, match=r"a: No space left on device .*writable_mib"):
        await _ready(tmp_path).copy(small_disk / "a", _GIB)
    assert os.listdir(small_disk) == ["filler"]
