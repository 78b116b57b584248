"""The guest's side of a listing: its pages, and what it refuses."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from api.changes_pb2 import Entry, ListResponse
from tests.unit.changes_world import disk
from vminitd import changes, fiemap
from vminitd.changes import Changes, Listing
from vminitd.errors import KernelError, RequestError, StateError
from vminitd.rootfs import Rootfs


class Mounted(Rootfs):
    """A root file system whose writable layer is a directory."""

    def __init__(self, writable: Path, *, whole: bool = False) -> None:
        super().__init__(str(writable))
        self._writable = str(writable) if writable.exists() else ""
        self._whole = whole


@pytest.fixture
def writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With an upper directory whose listing has four pages."""
    monkeypatch.setattr(changes, "PAGE_BYTES", 100)
    for name in ("a", "b/c", "d"):
        (tmp_path / "upper" / name).mkdir(parents=True)
    return tmp_path


def names(page: ListResponse) -> list[bytes]:
    return [entry.name for entry in page.entries]


async def page(of: Changes, number: int) -> ListResponse:
    return await of.page(number)


async def test_pages_come_one_after_the_other(writable: Path) -> None:
    listed = Changes(Mounted(writable))
    pages = [await page(listed, number) for number in range(3)]
    assert [names(each) for each in pages] == [[b"", b"a", b"b"], [b"c", b"d"], []]
    assert [each.last for each in pages] == [False, False, True]
    assert len({each.began_ns for each in pages}) == 1


async def test_any_other_page_is_refused(writable: Path) -> None:
    listed = Changes(Mounted(writable))
    with pytest.raises(RequestError, match="page 1"):
        await page(listed, 1)
    await page(listed, 0)
    for wrong in (2, 7):
        with pytest.raises(RequestError, match=f"page {wrong}"):
            await page(listed, wrong)
    assert names(await page(listed, 1)) == [b"c", b"d"]
    assert names(await page(listed, 0)) == [b"", b"a", b"b"]
    for number in (1, 2):
        await page(listed, number)
    with pytest.raises(RequestError):
        await page(listed, 3)


async def test_nothing_is_open_between_two_pages(writable: Path) -> None:
    """The file system could not be unmounted."""
    before = os.listdir("/proc/self/fd")
    listed = Changes(Mounted(writable))
    await asyncio.to_thread(os.getpid)
    await page(listed, 0)
    assert os.listdir("/proc/self/fd") == before


async def test_a_tree_that_is_gone_meanwhile_is_told(writable: Path) -> None:
    listed = Changes(Mounted(writable))
    await page(listed, 0)
    shutil.rmtree(writable / "upper/b")
    with pytest.raises(KernelError, match="in 'b'"):
        await page(listed, 1)
    with pytest.raises(RequestError):
        await page(listed, 2)


async def test_what_has_no_changes_is_refused(writable: Path) -> None:
    with pytest.raises(StateError, match="read-only"):
        await page(Changes(Mounted(writable / "none")), 0)
    with pytest.raises(StateError, match="all of the root"):
        await page(Changes(Mounted(writable, whole=True)), 0)


def test_a_file_system_that_cannot_say_where_data_are(writable: Path) -> None:
    """Its data would be missing: that is an error."""
    source = Path("/dev/shm/qemubox-test-changes")
    source.mkdir()
    try:
        (source / "file").write_text("text")
        with pytest.raises(KernelError, match="not supported"):
            Listing(str(source)).page()
    finally:
        shutil.rmtree(source)


def test_data_that_are_on_no_disk_yet(tmp_path: Path) -> None:
    """Nobody has synced: the kernel does not know a place for them."""
    with disk(tmp_path, mib=32) as made:
        path = made.root / "file"
        path.write_bytes(b"x" * 8192)
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(KernelError, match="cannot be told"):
                fiemap.Map().extents(fd, 0, 8192)
            os.fsync(fd)
            extents, following, inline = fiemap.Map().extents(fd, 0, 8192)
            assert (len(extents), following, inline) == (24, 0, False)
        finally:
            os.close(fd)


def test_too_many_attributes_for_a_page(writable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_MOST_BYTES", 300)
    os.setxattr(writable / "upper/a", "user.a", bytes(400))
    with pytest.raises(KernelError, match="attributes of b'a'"):
        Listing(str(writable / "upper")).page()


async def test_what_is_known_is_told_in_brief(writable: Path) -> None:
    """Its facts alone, without a look at anything else."""
    for name in ("a/file", "b/c/file"):
        (writable / "upper" / name).write_text("text")
        os.setxattr(writable / "upper" / name, "user.a", b"1")
    os.symlink("text", writable / "upper/link")
    known_ns = os.stat(writable / "upper/link", follow_symlinks=False).st_ctime_ns + 1
    listed = Changes(Mounted(writable))
    entries: list[Entry] = []
    for number in range(20):
        answer = await listed.page(number, known_ns=known_ns)
        entries += answer.entries
        if answer.last:
            break
    assert len(entries) == 8
    assert all(entry.brief and not entry.extents and not entry.xattrs for entry in entries)
    assert [entry.target for entry in entries if entry.target] == [b"text"]
