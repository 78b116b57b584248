"""Trees of files with everything that a layer may consist of, and how to look at them through the kernel."""

import contextlib
import hashlib
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.shim.rootfs.everything import fill
from tests.unit.shim.rootfs.host import Host, Mounted

Facts = dict[bytes, tuple[object, ...]]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Its directories are the test's own."""
    return Host(tmp_path)


@pytest.fixture(scope="session")
def mounted() -> Mounted:
    """`with mounted(source, fstype, options) as root`: a file system, mounted by this machine's kernel."""
    return _mounted


@contextlib.contextmanager
def _mounted(source: Path, fstype: str = "erofs", options: str = "loop,ro") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as root:
        subprocess.run(["mount", "-t", fstype, "-o", options, source, root], check=True)
        try:
            yield Path(root)
        finally:
            subprocess.run(["umount", root], check=True)


@pytest.fixture(scope="session")
def describe() -> Callable[[Path], Facts]:
    """Everything about every inode of a tree, by its path from the root."""
    return _describe


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A directory on a file system of 1 MiB."""
    with _mounted(Path("tmpfs"), "tmpfs", "size=1m") as path:
        yield path


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A directory as a snapshotter keeps it, with one of everything."""
    root = tmp_path / "snapshots" / "7" / "fs"
    root.mkdir(parents=True)
    fill(root)
    return root


def _describe(root: Path) -> Facts:
    first_name: dict[int, bytes] = {}
    start = os.fsencode(root)
    return {path: _facts(os.path.join(start, path), path, first_name) for path in [b".", *sorted(_paths(start, b""))]}


def _paths(start: bytes, below: bytes) -> Iterator[bytes]:
    with os.scandir(os.path.join(start, below)) as entries:
        for entry in entries:
            path = os.path.join(below, entry.name)
            yield path
            if entry.is_dir(follow_symlinks=False):
                yield from _paths(start, path)


def _facts(path: bytes, name: bytes, first_name: dict[int, bytes]) -> tuple[object, ...]:
    status = os.lstat(path)
    directory = stat.S_ISDIR(status.st_mode)
    return (
        oct(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        status.st_mtime_ns,
        None if directory else status.st_nlink,
        None if directory else first_name.setdefault(status.st_ino, name),
        _content(path, status),
        sorted((key, os.getxattr(path, key, follow_symlinks=False)) for key in _xattrs(path)),
    )


def _xattrs(path: bytes) -> list[str]:
    """But for one that erofs-utils 1.9 gives a directory with whiteouts, so that overlayfs looks for them there."""
    return [name for name in os.listxattr(path, follow_symlinks=False) if name != "trusted.overlay.origin"]


def _content(path: bytes, status: os.stat_result) -> bytes:
    if stat.S_ISLNK(status.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return b""
