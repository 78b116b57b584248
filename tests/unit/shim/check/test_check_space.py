"""The directories: small file systems of a test's own, full, read-only and odd. Needs root."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.check import space
from shim.check.line import Report
from tests.unit.shim.check.conftest import FakeHost, Said, Say


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 8 MiB and 64 inodes."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=64", "none", str(path)], check=True, timeout=10)
    yield path
    subprocess.run(["umount", str(path)], check=True, timeout=10)


def _set(fake: FakeHost, state: Path, data: Path, cache: Path) -> None:
    fake.configure("runtime", state_dir=str(state), data_dir=str(data), cache_dir=str(cache))
    fake.host.directory = state
    fake.put("/proc/self/mountinfo", Path("/proc/self/mountinfo").read_text())


async def test_what_is_good(small: Path, tmp_path: Path, fake: FakeHost, say: Say) -> None:
    """The state on a tmpfs; the others where tests are, which is a disk. They need not be there."""
    _set(fake, small, tmp_path / "a" / "b", tmp_path)
    said = await say(space.look)
    data = [line for line in said if "data_dir" in line.what]
    assert [line.level for line in data] == ["ok", "ok"]
    assert "MiB free" in data[0].found
    assert data[1].found == "sparse files, extended attributes and times of birth"
    assert "a tmpfs: what is in it ends" in _of(said, "state_dir")[1].found
    assert not (tmp_path / "a").exists()


def _of(said: Said, key: str) -> Said:
    return Said(line for line in said if key in line.what)


async def test_a_state_on_a_disk(tmp_path: Path, fake: FakeHost, say: Say) -> None:
    _set(fake, tmp_path, tmp_path, tmp_path)
    assert [line.level for line in _of(await say(space.look), "state_dir")] == ["ok", "warning"]


async def test_data_in_memory(small: Path, tmp_path: Path, fake: FakeHost, say: Say) -> None:
    _set(fake, small, small, tmp_path)
    said = _of(await say(space.look), "data_dir")
    assert said[0].level == "failure"
    assert "8 MiB free" in said[0].found
    assert any("takes the host's memory" in line.found for line in said)


async def test_no_inodes(small: Path, tmp_path: Path, fake: FakeHost, say: Say) -> None:
    for number in range(100):
        try:
            (small / str(number)).touch()
        except OSError:
            break
    _set(fake, tmp_path, tmp_path, small)
    said = _of(await say(space.look), "cache_dir")
    assert said[0].level == "failure"
    assert " 0 inodes" in said[0].found
    assert said[1].level == "failure"
    assert "no file can be made" in said[1].found


@pytest.fixture
def read_only(small: Path) -> Path:
    """The same, and nobody may write to it."""
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True, timeout=10)
    return small


async def test_read_only(read_only: Path, tmp_path: Path, fake: FakeHost, say: Say) -> None:
    _set(fake, tmp_path, read_only, tmp_path)
    said = _of(await say(space.look), "data_dir")
    assert said[0].found == "the file system is read-only"
    assert said[0].level == "failure"


async def test_a_file_in_the_way(tmp_path: Path, fake: FakeHost, say: Say) -> None:
    (tmp_path / "file").touch()
    _set(fake, tmp_path, tmp_path / "file" / "data", tmp_path)
    said = _of(await say(space.look), "data_dir")
    assert said[0].level == "failure"
    assert "is no directory" in said[0].found


async def test_no_place_for_probes(tmp_path: Path, fake: FakeHost, say: Say) -> None:
    _set(fake, tmp_path, tmp_path, tmp_path)
    fake.host.directory, fake.host.no_directory = None, "/x cannot be made: Read-only file system"
    said = await say(space.look)
    assert said[-1].level == "failure"
    assert said[-1].found == "/x cannot be made: Read-only file system"


@pytest.mark.parametrize(
    ("path", "kind"), [("/", "ext4"), ("/run", "tmpfs"), ("/run/a b/c", "xfs"), ("/runner", "ext4")]
)
def test_the_file_system_of_a_path(path: str, kind: str, fake: FakeHost) -> None:
    fake.put(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
        "2 1 0:5 / /run rw - tmpfs tmpfs rw\n"
        "3 2 0:6 / /run/a\\040b rw master:3 - xfs /dev/vdb rw\n",
    )
    assert space.file_system(fake.host, Path(path)) == kind


def test_problems_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file system that makes no hole and knows no birth."""
    monkeypatch.setattr(space, "birth", lambda _path: (1, 0))
    monkeypatch.setattr(space, "_HOLE", 0)
    report = Report("space")
    space._try(report, "runtime.data_dir", str(tmp_path))
    assert [line.found.partition(":")[0] for line in report.lines] == ["no sparse files", "no times of birth"]
    assert {line.level for line in report.lines} == {"warning"}
