"""Changes on their way from a real ext4 to the host: what is remembered of it, and what goes wrong."""

import asyncio
import dataclasses
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from api import changes_pb2 as pb
from shim.changes import inodes
from shim.changes.apply import Applying
from shim.changes.compare import Comparison, Step
from shim.changes.listing import Item
from shim.changes.record import Known
from shim.changes.target import Kind, Target
from shim.changes.write_back import Applied, WriteBack
from shim.errors import GuestError, ResourceError
from shim.guest import Guest
from tests.unit.changes_world import Disk, ListingGuest, disk, mounted, quiet, target, tree, write_back
from ttrpc import Code


@pytest.fixture(scope="module")
def guest_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with disk(tmp_path_factory.mktemp("disk"), mib=256) as made:
        yield made


@pytest.fixture
def upper(guest_disk: Disk) -> Iterator[Path]:
    directory = guest_disk.root / "upper"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = tmp_path / "fs"
    directory.mkdir()
    return directory


# What is remembered


def test_only_what_has_changed_is_applied(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (upper / name).write_text(name)
    os.link(upper / "a", upper / "z")
    to = target(host, guest_disk.image)
    write_back(upper, to)
    later(monkeypatch)
    assert write_back(upper, to).applied == 4
    kept = {name: (host / name).stat().st_ino for name in ("a", "b", "c", "z")}
    assert write_back(upper, to).applied == 0
    (upper / "b").write_text("other")
    (upper / "c").unlink()
    done = write_back(upper, to)
    assert (done.applied, done.removed, done.data_bytes) == (1, 1, 5)
    assert (host / "a").stat().st_ino == (host / "z").stat().st_ino == kept["a"]
    assert tree(host) == tree(upper)


def later(monkeypatch: pytest.MonkeyPatch, seconds: int = 2) -> None:
    """Listings that come so long after all that is done in the tree."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + seconds * 1_000_000_000)


def test_what_one_shim_has_applied_is_listed_in_brief(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it does not know it any more: of a guest whose clock was set back, or without its record."""
    for name in ("a", "b/c"):
        (upper / name).parent.mkdir(exist_ok=True)
        (upper / name).write_text(name)
    os.link(upper / "a", upper / "b/link")
    guest, to = ListingGuest(upper), target(host, guest_disk.image)
    back = WriteBack("c", cast(Guest, guest), to, quiet())
    run: Callable[[], Applied] = lambda: asyncio.run(back.run(10))  # noqa: E731
    later(monkeypatch, 4)
    assert (run().applied, guest.changes.briefs) == (4, 0)
    assert (run().applied, guest.changes.briefs) == (0, 5)
    monkeypatch.undo()
    (upper / "b/c").write_text("in the past, by the clock of the listing")
    run()
    assert tree(host) == tree(upper)
    later(monkeypatch, 4)
    run()
    to.record.unlink()
    assert run().applied == 4
    assert tree(host) == tree(upper)


@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "of another directory", "empty"])
def test_a_damaged_record_is_none(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """All is applied again, and what the guest does not have any more goes where nothing else can be in there."""
    later(monkeypatch)
    to = target(host, guest_disk.image)
    for name in ("a", "b"):
        (upper / name).write_text(name)
    write_back(upper, to)
    (upper / "b").unlink()
    record = to.record.read_bytes()
    if damage == "gone":
        to.record.unlink()
    elif damage == "of another directory":
        to.record.write_bytes(record[:18] + bytes(8) + record[26:])
    else:
        to.record.write_bytes({"cut": record[:-20], "changed": record[:50] + b"x" + record[51:], "empty": b""}[damage])
    done = write_back(upper, to)
    assert (done.applied, done.removed) == (1, 1)
    assert tree(host) == tree(upper)
    assert write_back(upper, to).applied == 0


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("at", range(6))
def test_killed_in_the_middle(guest_disk: Disk, upper: Path, host: Path, at: int, mirror: bool) -> None:
    """With a file half written. What was applied by then goes with the next run, if the guest has removed it."""
    for name in ("a", "b/c", "d"):
        (upper / name).parent.mkdir(exist_ok=True)
        (upper / name).write_text(name * 3000)
    to = target(host, guest_disk.image, mirror=mirror)
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 9 << 8
    else:
        die_at(at)
        write_back(upper, to)
        os._exit(1)
    assert to.record.with_name("fs.record.new").exists()
    shutil.rmtree(upper / "b")
    (upper / "d").write_text("other")
    write_back(upper, to)
    assert tree(host) == tree(upper)


def die_at(count: int) -> None:
    """This process ends before the data of its so-manieth file, or before that takes its place."""
    fill, rename = inodes.Copy.fill, os.rename
    left = [count]

    def dies(*_: object) -> None:
        if not left[0]:
            os._exit(9)
        left[0] -= 1

    def filled(self: inodes.Copy, fd: int, item: Item) -> None:
        dies()
        fill(self, fd, item)

    def renamed(source: bytes, to: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        dies()
        rename(source, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    inodes.Copy.fill = filled  # type: ignore[method-assign]
    os.rename = renamed  # type: ignore[assignment]


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("others", [0, 2000])
def test_a_directory_that_an_interrupted_run_has_removed_comes_back(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch, others: int, mirror: bool
) -> None:
    """What is in it has not changed, but is not there any more."""
    later(monkeypatch)
    (upper / "d/below").mkdir(parents=True)
    (upper / "d/below/file").write_text("never changed")
    (upper / "z").write_text("z")
    for number in range(others):  # removed in more than one step
        (upper / f"e{number}").write_text("")
    to = target(host, guest_disk.image, mirror=mirror)
    write_back(upper, to)
    (upper / "d").rename(upper / "x")
    for number in range(others):
        (upper / f"e{number}").unlink()
    (upper / "z").write_text("other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inodes.Copy, "fill", full)
        with pytest.raises(ResourceError):
            write_back(upper, to)
    assert not (host / "d").exists()
    (upper / "x").rename(upper / "d")
    write_back(upper, to)
    assert tree(host) == tree(upper)


def full(_: inodes.Copy, _fd: int, _item: Item) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_is_removed_is_not_all_kept_in_memory(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path has thousands of names, and a directory may have had hundreds of thousands of files."""
    for number in range(3000):
        (upper / f"a{number}").touch()
    (upper / "z").touch()
    to = target(host, guest_disk.image)
    write_back(upper, to)
    for number in range(3000):
        (upper / f"a{number}").unlink()
    waiting = most = 0
    do, gone = Applying._do, Comparison._gone

    def begun(self: Comparison, known: Known) -> Iterator[Step]:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        return gone(self, known)

    def done(self: Applying, step: Step) -> None:
        nonlocal waiting
        waiting -= step.item is None
        do(self, step)

    monkeypatch.setattr(Comparison, "_gone", begun)
    monkeypatch.setattr(Applying, "_do", done)
    assert write_back(upper, to).removed == 3000
    assert 0 < most <= 1024


@pytest.mark.parametrize("lost", ["data", "a file", "a directory"])
def test_what_is_remembered_of_an_earlier_start_is_no_proof(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """The host has lost its power, and with it what had not been on its disk; the record had been."""
    later(monkeypatch)
    (upper / "d").mkdir()
    (upper / "d/file").write_text("synced by the container")
    to = target(host, guest_disk.image)
    write_back(upper, to)
    if lost == "data":
        os.truncate(host / "d/file", 0)
    elif lost == "a file":
        (host / "d/file").unlink()
    else:
        shutil.rmtree(host / "d")
    done = write_back(upper, dataclasses.replace(to, taken_up=True))
    assert done.applied == 2
    assert tree(host) == tree(upper)
    assert write_back(upper, to).applied == 0


# What goes wrong


def test_a_full_disk_leaves_nothing_half(guest_disk: Disk, upper: Path, tmp_path: Path) -> None:
    host = tmp_path / "small"
    host.mkdir()
    (upper / "a").write_text("small")
    (upper / "b").write_bytes(os.urandom(8 << 20))
    with mounted("tmpfs", host, "size=4m"):
        (host / "fs").mkdir()
        to = Target(host / "fs", Kind.OVERLAY, True, guest_disk.image, tmp_path / "record")
        for _ in range(2):
            with pytest.raises(ResourceError, match="'b': No space left") as full:
                write_back(upper, to)
            assert full.value.hint
            assert os.listdir(host / "fs") == ["a"]
        subprocess.run(["mount", "-o", "remount,size=40m", str(host)], check=True, timeout=30)
        write_back(upper, to)
        assert tree(host / "fs") == tree(upper)


def test_a_path_that_is_told_is_not_a_million_bytes(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = os.open(upper, os.O_RDONLY)
    for _ in range(100):
        os.mkdir(b"\xff" * 250, dir_fd=at)
        below = os.open(b"\xff" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)
    monkeypatch.setattr(inodes.Copy, "fill", full)
    with pytest.raises(ResourceError, match="No space left") as error:
        write_back(upper, target(host, guest_disk.image))
    assert len(error.value.message) < 1000


def test_an_image_that_ends_early_is_told(guest_disk: Disk, upper: Path, host: Path) -> None:
    """QEMU is not trusted: it could have cut it off. What is read is an error, not zeros."""
    (upper / "file").write_bytes(b"x" * 100_000)

    image = os.open(host.parent / "short", os.O_RDWR | os.O_CREAT)
    os.truncate(image, os.fstat(guest_disk.image).st_size)
    back = WriteBack("c", cast(Guest, ListingGuest(upper)), target(host, image), quiet())
    original = inodes.Copy.fill

    def cut(self: inodes.Copy, fd: int, item: Item) -> None:
        os.truncate(image, 4096)
        original(self, fd, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inodes.Copy, "fill", cut)
        with pytest.raises(GuestError, match="ends before"):
            asyncio.run(back.run(10))
    os.close(image)
    assert os.listdir(host) == []


async def test_one_that_is_called_off_is_over(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread writes any more, and the next run does all of it."""
    for number in range(60):
        (upper / f"{number:03}").write_text("x")
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    original = inodes.Copy.fill

    def slow(self: inodes.Copy, fd: int, item: Item) -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.02)
        original(self, fd, item)

    monkeypatch.setattr(inodes.Copy, "fill", slow)
    back = WriteBack("c", cast(Guest, ListingGuest(upper)), target(host, guest_disk.image), quiet())
    running = asyncio.create_task(back.run(60))
    await begun.wait()
    for _ in range(3):
        running.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([running])
    assert running.cancelled()
    names = os.listdir(host)
    assert len(names) < 60
    assert not [name for name in names if name.startswith(".qemubox")]
    await asyncio.sleep(0.05)
    assert os.listdir(host) == names
    await back.run(60)
    assert tree(host) == tree(upper)


async def test_a_guest_that_never_tells_all(
    guest_disk: Disk, host: Path, upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upper / "file").write_text("text")
    guest = ListingGuest(upper)
    honest = guest.changes.List

    async def brief(request: pb.ListRequest) -> pb.ListResponse:
        page = await honest(request)
        for entry in page.entries:
            entry.brief = True
        return page

    monkeypatch.setattr(guest.changes, "List", brief)
    back = WriteBack("c", cast(Guest, guest), target(host, guest_disk.image), quiet())
    with pytest.raises(GuestError, match="does not tell all"):
        await back.run(10)
    assert os.listdir(host) == []


async def test_a_guest_that_does_not_answer(
    guest_disk: Disk, host: Path, upper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(_: pb.ListRequest) -> pb.ListResponse:
        await asyncio.Event().wait()
        raise AssertionError

    guest = ListingGuest(upper)
    monkeypatch.setattr(guest.changes, "List", silent)
    back = WriteBack("c", cast(Guest, guest), target(host, guest_disk.image), quiet())
    with pytest.raises(GuestError, match=r"within 0\.1 s") as late:
        await back.run(0.1)
    assert late.value.status is Code.DEADLINE_EXCEEDED
    assert not target(host, guest_disk.image).record.exists()
