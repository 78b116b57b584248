"""`qemubox cache`: what it shows is what is there, and what it removes nobody uses."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from shim.cli import main
from shim.rootfs.cache import LayerCache
from shim.rootfs.store import OpenLayer
from shim.rootfs.users import inode_of, shared_locks


class Run(Protocol):
    """The fixture of that name."""

    def __call__(self, *words: str) -> tuple[int, str]: ...


class Host:
    """A cache with layers, as its configuration names it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / "cache" / "layers"
        self.cache = LayerCache(self.directory, limit_mib=1000, mkfs_erofs="mkfs.erofs", deadline_s=30)

    def layer(self, number: int) -> Path:
        path = self.root / "snapshots" / str(number) / "fs"
        if not path.exists():
            path.mkdir(parents=True)
            (path / "file").write_bytes(bytes([number]) * (1 << 20))
        return path

    def open(self, number: int) -> OpenLayer:
        """The image of a layer, last used `number` seconds after 1970."""
        image = asyncio.run(self.cache.ensure(self.layer(number)))
        os.utime(image.fd, (number, number))
        return image

    def digests(self) -> set[str]:
        return {path.stem for path in (self.directory / "blobs").iterdir()}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    config = tmp_path / "config.toml"
    config.write_text(f'[runtime]\ncache_dir = "{tmp_path}/cache"\n[rootfs]\ncache_limit_mib = 64\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(config))
    return Host(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command's exit status, and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        status = main(["cache", *words])
        out, err = capsys.readouterr()
        return status, out + err

    return run


@contextmanager
def _another_process_has(path: Path) -> Iterator[None]:
    """As a QEMU does: it holds the lock as long as it lives."""
    code = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH); print(flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate(b"\n")


def test_show_without_a_cache(host: Host, run: Run) -> None:
    assert run("show") == (0, f"0 images, 0.0 MiB of 64 MiB, in {host.directory}\n")
    assert run("prune")[0] == run("verify")[0] == 0
    assert not host.directory.exists()


def test_show(host: Host, run: Run) -> None:
    first, second = host.open(1), host.open(2)
    second.close()
    with _another_process_has(first.path):
        status, text = run("show")
        listed = json.loads(run("show", "--json")[1])
    lines = text.splitlines()
    assert status == 0
    assert re.fullmatch(
        rf"{first.digest[:12]}  1\.0 MiB of 1\.0 MiB  \d{{4}}-\d\d-\d\d \S+  in use by 2  {host.layer(1)}", lines[0]
    )
    assert lines[1].endswith(f"not in use  {host.layer(2)}")
    assert re.fullmatch(rf"2 images, 2\.\d MiB of 64 MiB, in {host.directory}", lines[2])
    first.close()
    assert listed["limit_bytes"] == 64 << 20
    assert [(image["digest"], image["users"], image["used_at"]) for image in listed["images"]] == [
        (first.digest, 2, 1.0),
        (second.digest, 0, 2.0),
    ]
    assert listed["disk_bytes"] == sum(image["disk_bytes"] for image in listed["images"])
    assert listed["images"][0]["layers"] == [str(host.layer(1))]


def test_equal_layers_are_shown_with_their_image(host: Host, run: Run) -> None:
    host.open(1).close()
    twin = host.root / "snapshots" / "12" / "fs"
    twin.parent.mkdir()
    subprocess.run(["cp", "-a", host.layer(1), twin], check=True)
    asyncio.run(host.cache.ensure(twin)).close()
    assert f"{host.layer(1)}, {twin}\n" in run("show")[1]


def test_prune_takes_what_is_for_no_layer_any_more(host: Host, run: Run) -> None:
    kept, gone, changed, used = (host.open(number) for number in (1, 2, 3, 4))
    for image in (kept, gone, changed):
        image.close()
    for number in (2, 4):
        host.layer(number).rename(host.root / str(number))
    (host.layer(3) / "more").touch()
    assert "for no layer that is there" in run("show")[1]
    with used:
        status, text = run("prune")
        assert (status, host.digests()) == (0, {kept.digest, used.digest})
    lines = text.splitlines()
    assert lines[:2] == [f"removed: {image.digest[:12]}  1.0 MiB" for image in (gone, changed)]
    assert re.fullmatch(r"freed 2\.\d MiB; left: 2 images, 1 of them in use, 2\.\d MiB", lines[2])
    assert len(os.listdir(host.directory / "layers")) == len(os.listdir(host.directory / "index")) == 2


def test_prune_to_a_size_takes_the_least_recently_used(host: Host, run: Run) -> None:
    images = [host.open(number) for number in (1, 2, 3, 4)]
    for image in images[1:]:
        image.close()
    assert run("prune", "--to", "3")[0] == 0
    assert host.digests() == {images[0].digest, images[3].digest}
    images[0].close()


def test_prune_all_leaves_what_a_machine_has(host: Host, run: Run) -> None:
    one, two = host.open(1), host.open(2)
    one.close()
    two.close()
    with _another_process_has(two.path):
        assert run("prune", "--all")[0] == 0
        assert host.digests() == {two.digest}
        with host.cache.lookup(host.layer(2)) or pytest.fail("no image"):
            pass
    run("prune", "--all")
    assert host.digests() == set()


def test_prune_takes_what_killed_makers_left(host: Host, run: Run) -> None:
    host.open(1).close()
    for name in ("left.erofs.lock", "left.erofs"):
        (host.directory / "making" / name).write_bytes(bytes(1000))
    run("prune")
    assert os.listdir(host.directory / "making") == []


def test_a_size_that_is_none(host: Host, run: Run) -> None:
    assert run("prune", "--to", "-1") == (1, "qemubox: --to -1: must be a whole number of MiB, 0 or more\n")


def test_verify_removes_what_is_damaged(host: Host, run: Run) -> None:
    """Even one in use: whoever has it open keeps it, but nobody else gets it."""
    good, rotten, cut = (host.open(number) for number in (1, 2, 3))
    assert run("verify")[0] == 0
    for image, at in ((rotten, rotten.size - 5000), (cut, cut.size - 1)):
        image.path.chmod(0o600)
        with image.path.open("r+b") as file:
            file.seek(at)
            file.write(b"rot")
    os.truncate(cut.path, cut.size - 4096)
    status, text = run("verify")
    assert status == 1
    assert text.splitlines() == [
        f"{good.digest[:12]}  1.0 MiB  good",
        f"{rotten.digest[:12]}  1.0 MiB  damaged, removed: its content is not what was written",
        f"{cut.digest[:12]}  1.0 MiB  damaged, removed: is cut short: has {cut.size - 4096} bytes of {cut.size}",
    ]
    assert host.digests() == {good.digest}
    for image in (good, rotten, cut):
        image.close()
    assert host.open(2).digest == rotten.digest
    assert run("verify")[0] == 0


def test_locks_are_those_of_the_kernel_s_list(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    before = shared_locks(Path("/proc/locks").read_text())[inode_of(file)]
    with _another_process_has(file), _another_process_has(file):
        assert (before, shared_locks(Path("/proc/locks").read_text())[inode_of(file)]) == (0, 2)
    waiting = "1: FLOCK  ADVISORY  READ 7 fe:01:12 0 EOF\n1: -> FLOCK  ADVISORY  READ 8 fe:01:12 0 EOF\n"
    others = "2: FLOCK  ADVISORY  WRITE 9 fe:01:13 0 EOF\n3: POSIX  ADVISORY  READ 9 fe:01:14 0 EOF\n"
    assert shared_locks(waiting + others) == {(0xFE, 1, 12): 1}


def test_a_reader_that_has_had_enough_is_no_fault_of_the_caches(host: Host) -> None:
    """Of a list that is longer than what is kept back; here nothing is."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "shim.cli", "cache", "show"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, timeout=30, env=environment, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")
