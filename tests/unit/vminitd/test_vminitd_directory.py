"""A container's directory: private, and removed without ever touching what is mounted in it."""

import os
from pathlib import Path

import pytest

from vminitd.directory import ContainerDirectory, write_private
from vminitd.libc import mount, umount


@pytest.fixture
def directory(tmp_path: Path) -> ContainerDirectory:
    made = ContainerDirectory(str(tmp_path / "c"))
    made.make()
    return made


def test_everything_in_it_is_private(directory: ContainerDirectory) -> None:
    """Others may only go through the directory itself, to the root file system in it."""
    write_private(f"{directory.bundle}/config.json", b"{}")
    for path in (directory.bundle, f"{directory.bundle}/config.json"):
        assert os.stat(path).st_mode & 0o077 == 0
    assert os.stat(directory.path).st_mode & 0o777 == 0o711
    with pytest.raises(FileExistsError):
        write_private(f"{directory.bundle}/config.json", b"{}")
    with pytest.raises(FileExistsError):
        directory.make()


def test_all_of_it_is_removed(directory: ContainerDirectory) -> None:
    for _ in range(3):
        write_private(directory.new_file(), b"{}")
    for mount_point in ("mnt/0", "mnt/rw", "rootfs"):
        os.makedirs(f"{directory.path}/{mount_point}")
    directory.remove()
    assert not os.path.exists(directory.path)
    directory.remove()  # nothing to do


@pytest.mark.parametrize("where", ["mnt/rw", "rootfs"])
def test_what_is_still_mounted_is_not_touched(directory: ContainerDirectory, where: str) -> None:
    target = f"{directory.path}/{where}"
    os.makedirs(target)
    mount("tmpfs", target, "tmpfs", 0, "")
    try:
        Path(target, "data").write_text("precious")
        with pytest.raises(OSError, match="busy"):
            directory.remove()
        assert Path(target, "data").read_text() == "precious"
    finally:
        umount(target)
