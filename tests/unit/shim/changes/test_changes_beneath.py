"""A tree whose names come from a guest: nothing but it can be reached, read or removed."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.changes.beneath import Tree, open_beneath
from vminitd.libc import MNT_DETACH, MS_BIND, mount, umount


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """With a directory beside it, which a link in it leads to."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").touch()
    directory = tmp_path / "root"
    (directory / "a/b/c").mkdir(parents=True)
    (directory / "a/file").touch()
    (directory / "out").symlink_to(tmp_path / "outside")
    (directory / "in").symlink_to("a")
    return directory


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    made = Tree(os.open(root, os.O_RDONLY | os.O_DIRECTORY))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"..", errno.EXDEV),
        (b"a/../..", errno.EXDEV),
        (b"/", errno.EXDEV),
        (b"out", errno.ELOOP),
        (b"in", errno.ELOOP),
        (b"in/b", errno.ELOOP),
        (b"a/file", errno.ENOTDIR),
        (b"nothing", errno.ENOENT),
    ],
)
def test_no_way_leads_out(root: Path, path: bytes, number: int) -> None:
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as refused:  # noqa: PT011  its number is looked at
            os.close(open_beneath(directory, path))
        assert refused.value.errno == number
    finally:
        os.close(directory)


def test_a_mount_is_not_crossed(root: Path, tree: Tree) -> None:
    mount(str(root.parent / "outside"), str(root / "a/b"), "", MS_BIND)
    try:
        with pytest.raises(OSError, match="cross-device"):
            tree.at((b"a", b"b"))
        with pytest.raises(OSError, match=r"busy|cross-device"):
            tree.remove((b"a",))
        assert (root.parent / "outside/file").exists()
    finally:
        umount(str(root / "a/b"), MNT_DETACH)


def test_directories_are_open_as_long_as_they_are_needed(root: Path, tree: Tree) -> None:
    for names in ((), (b"a",), (b"a", b"b", b"c"), (b"a", b"b"), (), (b"a", b"b", b"c")):
        assert os.path.samestat(os.fstat(tree.at(names)), os.stat(os.path.join(os.fsencode(root), *names)))


def test_of_a_deep_tree_few_are_open(root: Path, tree: Tree) -> None:
    names: list[bytes] = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        os.mkdir(b"d" * 200, dir_fd=tree.at(tuple(names)))
        names.append(b"d" * 200)
    assert len(os.listdir("/proc/self/fd")) < before + 70
    tree.at(())
    at = tree.at(tuple(names))  # in several steps, for it is longer than any path
    assert os.listdir(at) == []
    assert tree.remove((b"d" * 200,))
    assert sorted(os.listdir(root)) == ["a", "in", "out"]


def test_removing(root: Path, tree: Tree) -> None:
    assert tree.remove((b"out",))
    assert tree.remove((b"in",))
    assert tree.remove((b"a",))
    assert not tree.remove((b"a",))
    assert os.listdir(root) == []
    assert os.listdir(root.parent / "outside") == ["file"]


def test_what_is_there_is_not_what_a_link_leads_to(tree: Tree) -> None:
    status = tree.status((b"out",))
    assert status is not None
    assert status.st_mode & 0o170000 == 0o120000
    assert tree.status((b"out", b"file")) is None
    assert tree.status((b"a", b"file", b"x")) is None
    assert tree.status((b"nothing",)) is None
