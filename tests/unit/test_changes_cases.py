"""Changes on their way from a real ext4 to the host: what randomness would rarely meet."""

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from shim.changes.target import Kind
from shim.changes.write_back import WriteBack
from shim.errors import HostError
from shim.guest import Guest
from tests.unit.changes_world import Disk, ListingGuest, disk, mounted, quiet, target, tree, write_back
from vminitd import changes, fiemap

_BLOCK = 4096


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


def whiteout(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR, 0)


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


# What is where


def test_an_empty_directory_is_one_call(guest_disk: Disk, upper: Path, host: Path) -> None:
    guest = ListingGuest(upper)
    back = WriteBack("c", cast(Guest, guest), target(host, guest_disk.image), quiet())
    done = asyncio.run(back.run(10))
    assert (guest.changes.pages, done.entries, done.removed, done.data_bytes) == (1, 1, 0, 0)
    assert done.applied == 0  # so nobody has to sync anything


@pytest.mark.parametrize("change", ["mode", "owner", "attribute"])
def test_the_directory_itself_can_change(guest_disk: Disk, upper: Path, host: Path, change: str) -> None:
    to = target(host, guest_disk.image)
    write_back(upper, to)
    if change == "mode":
        upper.chmod(0o700)
    elif change == "owner":
        os.chown(upper, 7, 8)
    else:
        os.setxattr(upper, "user.a", b"1")
    assert write_back(upper, to).applied == 1
    assert tree(host) == tree(upper)


def test_holes_stay_holes(guest_disk: Disk, upper: Path, host: Path) -> None:
    with (upper / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        os.pwrite(file.fileno(), b"x" * _BLOCK, 1 << 30)
    with (upper / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        os.pwrite(file.fileno(), b"y" * _BLOCK, _BLOCK)
    done = write_back(upper, target(host, guest_disk.image))
    assert done.data_bytes == 2 * _BLOCK
    for name in ("sparse", "allocated"):
        assert (host / name).stat().st_size == (upper / name).stat().st_size
        assert (host / name).stat().st_blocks <= 4 * _BLOCK // 512
        with (host / name).open("rb") as file:
            at = os.lseek(file.fileno(), 0, os.SEEK_DATA)
            assert os.pread(file.fileno(), _BLOCK, at) == (b"x" if name == "sparse" else b"y") * _BLOCK


def test_a_file_of_very_many_extents(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each a block, with a hole behind it: more than fit into one entry, and into one page."""
    monkeypatch.setattr(changes, "PAGE_BYTES", 10_000)
    with (upper / "file").open("wb") as file:
        for number in range(3000):
            os.pwrite(file.fileno(), number.to_bytes(4, "little") * 1024, number * 2 * _BLOCK)
    (upper / "z").write_text("after it")
    write_back(upper, target(host, guest_disk.image))
    assert tree(host) == tree(upper)


@pytest.mark.parametrize("written", [(), (0,), (30,), (0, 30)])
def test_a_file_of_many_extents_that_are_not_written_yet(
    guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch, written: tuple[int, ...]
) -> None:
    """As of a database that has taken its room in advance: more of them than the kernel tells at once."""
    monkeypatch.setattr(fiemap, "FEW", 2)
    monkeypatch.setattr(fiemap, "MANY", 4)
    with (upper / "file").open("wb") as file:
        for number in range(30):
            os.posix_fallocate(file.fileno(), number * 2 * _BLOCK, _BLOCK)
        for number in written:
            os.pwrite(file.fileno(), b"x" * _BLOCK, number * 2 * _BLOCK)
    write_back(upper, target(host, guest_disk.image))
    assert tree(host) == tree(upper)


def test_a_tree_deeper_than_any_path(guest_disk: Disk, upper: Path, host: Path) -> None:
    """And back: what is gone is removed, at whatever depth."""
    fds = [os.open(upper, os.O_RDONLY)]
    for number in range(900):
        os.mkdir(f"directory{number}", dir_fd=fds[-1])
        os.close(os.open(f"file{number}", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fds[-1]))
        fds.append(os.open(f"directory{number}", os.O_RDONLY, dir_fd=fds[-1]))
        os.close(fds.pop(0))
    os.close(fds.pop())
    to = target(host, guest_disk.image)
    assert write_back(upper, to).applied == 1800
    assert write_back(upper, to).applied <= 1800
    listed = subprocess.run(["find", "."], cwd=host, capture_output=True, check=True, timeout=30).stdout
    assert listed.count(b"\n") == 1801
    subprocess.run(["rm", "-r", str(upper / "directory0" / "directory1")], check=True, timeout=30)
    assert write_back(upper, to).removed == 1
    assert tree(host) == tree(upper)
    assert len(tree(host)) == 4


def test_data_within_the_inode(tmp_path: Path, host: Path) -> None:
    """A file system that was made with other features than ours: the erofs snapshotter makes its own."""
    with disk(tmp_path, features="has_journal,extent,inline_data,ext_attr,filetype,dir_index,ea_inode") as made:
        upper = made.root / "upper"
        upper.mkdir()
        (upper / "short").write_text("short")
        (upper / "long").write_text("long" * 5000)
        os.setxattr(upper / "long", "user.a", b"x" * 3000)
        write_back(upper, target(host, made.image))
        assert tree(host) == tree(upper)


def test_blocks_of_1_kib(tmp_path: Path, host: Path) -> None:
    with disk(tmp_path, block=1024) as made:
        upper = made.root / "upper"
        upper.mkdir()
        for size in (1, 1023, 1024, 1025, 70_000):
            (upper / str(size)).write_bytes(os.urandom(size))
        write_back(upper, target(host, made.image))
        assert tree(host) == tree(upper)


def test_a_file_system_that_stands_still_is_listed_as_well(guest_disk: Disk, upper: Path, host: Path) -> None:
    (upper / "file").write_text("text")
    os.symlink("file", upper / "link")
    directory = os.open(upper, os.O_RDONLY)
    try:
        os.fsync(directory)
        fcntl.ioctl(directory, 0xC0045877, 0)  # FIFREEZE
        try:
            write_back(upper, target(host, guest_disk.image))
        finally:
            fcntl.ioctl(directory, 0xC0045878, 0)
    finally:
        os.close(directory)
    assert tree(host) == tree(upper)


def test_from_another_file_system(guest_disk: Disk, upper: Path, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not copy between the two."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    (upper / "file").write_bytes(os.urandom(3_000_000))
    assert write_back(upper, target(host, guest_disk.image)).data_bytes == 3_000_000
    assert tree(host) == tree(upper)


# What earlier starts have left


def test_a_directory_in_place_of_a_whiteout_hides_what_the_image_has(guest_disk: Disk, upper: Path, host: Path) -> None:
    whiteout(host / "a")
    (host / "b").write_text("of an earlier start")
    (upper / "a").mkdir()
    (upper / "b").mkdir()
    write_back(upper, target(host, guest_disk.image, mirror=False))
    assert is_opaque(host / "a")
    assert is_opaque(host / "b")
    (upper / "a/new").touch()
    write_back(upper, target(host, guest_disk.image, mirror=False))
    assert is_opaque(host / "a")


def test_what_took_the_place_of_a_whiteout_leaves_it_when_it_goes(guest_disk: Disk, upper: Path, host: Path) -> None:
    to = target(host, guest_disk.image, mirror=False)
    for name in ("a", "b", "c"):
        whiteout(host / name)
    (upper / "a").write_text("a")
    (upper / "b").mkdir()
    write_back(upper, to)
    assert (host / "a").read_text() == "a"
    (upper / "a").write_text("other")
    write_back(upper, to)
    (upper / "a").unlink()
    (upper / "b").rmdir()
    (upper / "new").touch()
    write_back(upper, to)
    assert sorted(os.listdir(host)) == ["a", "b", "c", "new"]
    assert all(is_whiteout(host / name) for name in ("a", "b", "c"))
    (upper / "new").unlink()
    write_back(upper, to)
    assert sorted(os.listdir(host)) == ["a", "b", "c"]


def test_what_is_not_listed_stays(guest_disk: Disk, upper: Path, host: Path) -> None:
    (host / "directory").mkdir()
    (host / "directory/file").write_text("of an earlier start")
    (host / "opaque/below").mkdir(parents=True)
    (host / "opaque/below/file").touch()
    (host / "opaque/file").touch()
    (upper / "directory").mkdir()
    (upper / "directory/new").touch()
    (upper / "opaque/below").mkdir(parents=True)
    (upper / "opaque/below/new").touch()
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    write_back(upper, target(host, guest_disk.image, mirror=False))
    found = sorted(str(path.relative_to(host)) for path in host.rglob("*"))
    assert found == ["directory", "directory/file", "directory/new", "opaque", "opaque/below", "opaque/below/new"]


def test_deletions_are_carried_out_in_a_plain_directory(guest_disk: Disk, upper: Path, host: Path) -> None:
    (host / "a/b").mkdir(parents=True)
    (host / "file").touch()
    (host / "opaque").mkdir()
    (host / "opaque/file").touch()
    whiteout(upper / "a")
    whiteout(upper / "file")
    whiteout(upper / "nothing")
    (upper / "opaque").mkdir()
    os.setxattr(upper / "opaque", "trusted.overlay.opaque", b"y")
    done = write_back(upper, target(host, guest_disk.image, kind=Kind.PLAIN, mirror=False))
    assert [str(path.relative_to(host)) for path in host.rglob("*")] == ["opaque"]
    assert not is_opaque(host / "opaque")
    assert done.removed == 3


# Whoever has made the directory look otherwise


def test_no_symbolic_link_is_followed(guest_disk: Disk, upper: Path, host: Path, tmp_path: Path) -> None:
    """Of an earlier start, or of this one: what was a link and is a directory now has nothing of the link's end."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("the host's own")
    os.symlink(outside, host / "a")
    os.symlink(outside / "file", host / "b")
    (upper / "a").mkdir()
    (upper / "a/file").write_text("the guest's")
    (upper / "b").write_text("the guest's")
    os.symlink(outside, upper / "c")
    write_back(upper, target(host, guest_disk.image, mirror=False))
    assert (outside / "file").read_text() == "the host's own"
    assert (host / "a/file").read_text() == (host / "b").read_text() == "the guest's"
    assert os.listdir(outside) == ["file"]
    assert os.readlink(host / "c") == str(outside)
    shutil.rmtree(upper / "a")
    (upper / "a").symlink_to(outside)
    write_back(upper, target(host, guest_disk.image, mirror=False))
    assert os.readlink(host / "a") == str(outside)


def test_no_mount_is_crossed(guest_disk: Disk, upper: Path, host: Path) -> None:
    (host / "a").mkdir()
    (upper / "a").mkdir()
    (upper / "a/file").touch()
    with mounted("tmpfs", host / "a"):
        (host / "a/kept").touch()
        with pytest.raises(HostError, match="'a'"):
            write_back(upper, target(host, guest_disk.image))
        shutil.rmtree(upper / "a")
        with pytest.raises(HostError):
            write_back(upper, target(host, guest_disk.image))
        assert os.listdir(host / "a") == ["kept"]


def test_a_snapshot_that_is_gone_is_told(guest_disk: Disk, upper: Path, host: Path) -> None:
    host.rmdir()
    with pytest.raises(HostError, match="No such file"):
        write_back(upper, target(host, guest_disk.image))
