"""`qemubox cp` as people run it, and trees of files that are compared inode by inode."""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import pytest

from harness.box import Box

_DEADLINE_S: Final = 90.0


def begin(box: Box, *words: str, stdin: int | IO[bytes] = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    """Run it, with pipes for what it says."""
    command = box.containerd.cell.inside([str(box.qemubox.bin / "qemubox"), "cp", *words])
    return subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | box.qemubox.environment,
    )


def copy(box: Box, *words: str, stdin: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    """Run it to its end."""
    process = begin(box, *words, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
    try:
        out, error = process.communicate(stdin, _DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    return subprocess.CompletedProcess(words, process.returncode, out, error)


def copied(box: Box, *words: str, stdin: bytes | None = None) -> bytes:
    """Run it to its success without a word on standard error; its standard output."""
    done = copy(box, *words, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def refused(box: Box, *words: str, stdin: bytes | None = None) -> str:
    """Run it to its failure; the one line that it says."""
    done = copy(box, *words, stdin=stdin)
    assert done.returncode == 1, done
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("qemubox: ")
    return lines[0]


@pytest.fixture
def place(vm: Box) -> Iterator[Path]:
    """A directory of the host."""
    directory = vm.containerd.cell.directory / "tmp" / f"copy-{vm.new_id()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@contextmanager
def container(box: Box, script: str = "sleep 1000", *options: str) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before."""
    name = box.start("sh", "-c", script, options=("--null-io", *options))
    yield name
    box.kill(name)
    box.wait_stopped(name)
    box.delete_task(name)
    box.remove(name).checked()


def sh(box: Box, name: str, script: str) -> str:
    """What a shell in the container says."""
    ctr = box.containerd.ctr
    return ctr("tasks", "exec", "--exec-id", "e", name, "sh", "-c", script, deadline_s=_DEADLINE_S).checked().text


def archive(name: str, size: int) -> bytes:
    """A tar archive with a file of random bytes in it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = size
        tar.addfile(info, io.BytesIO(os.urandom(size)))
    return out.getvalue()


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All of it by path: kind and mode, owner, time in ns, content or target, device, attributes, names alike."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], str] = {}
    for path in _walk(root):
        status = path.lstat()
        name = str(path.relative_to(root))
        first = names.setdefault((status.st_dev, status.st_ino), name)
        content: object = None
        if stat.S_ISREG(status.st_mode):
            content = (status.st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        attributes = {each: os.getxattr(path, each, follow_symlinks=False) for each in _attributes(path)}
        owner = (status.st_uid, status.st_gid)
        alike = first if not stat.S_ISDIR(status.st_mode) else ""
        found[name] = (oct(status.st_mode), owner, status.st_mtime_ns, content, status.st_rdev, attributes, alike)
    return found


def _attributes(path: Path) -> list[str]:
    wanted = ("user.", "security.capability", "system.posix_acl")
    return [each for each in os.listxattr(path, follow_symlinks=False) if each.startswith(wanted)]


def _walk(path: Path) -> Iterator[Path]:
    yield path
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            yield from _walk(child)
