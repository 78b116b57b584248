"""The journal played backwards, against real processes, mounts and files. Needs root."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shim import reclaim as module
from shim.claim import LOCK_NAME, claim
from shim.journal import FILE_NAME, Journal
from shim.reclaim import reclaim
from tests.unit.shim.observe import Child, same_fds, wait_for_words

Marked = Callable[[str], Child]

# Markers are looked for in the whole host, where another run of the tests may be under way.
_RUN = f"qemubox-test-{os.getpid()}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


@pytest.fixture
def marked() -> Iterator[Marked]:
    """Processes with a text in their command line."""
    started: list[Child] = []

    def start(marker: str) -> Child:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", marker])
        started.append(child)
        wait_for_words(child.pid, marker)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def mount() -> Iterator[Callable[[Path, Path], None]]:
    """Bind mounts, gone at the end of the test."""
    points: list[Path] = []

    def bind(source: Path, target: Path) -> None:
        subprocess.run(["mount", "--bind", source, target], check=True)
        points.append(target)

    yield bind
    for point in points:
        subprocess.run(["umount", "--lazy", point], check=False, stderr=subprocess.DEVNULL)


def _mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def test_an_empty_journal_leaves_nothing(directory: Path) -> None:
    (directory / "console").write_text("x")
    (directory / "sub").mkdir()
    (directory / "sub" / "file").write_text("x")
    assert reclaim(directory) == []
    assert not directory.exists()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert reclaim(tmp_path / "nothing") == []


def test_twice_is_as_good_as_once(directory: Path, tmp_path: Path, marked: Marked) -> None:
    child = marked(f"{_RUN}-twice")
    journal = Journal(directory)
    for name in ("file", "tree", "never made"):
        journal.record("path", path=str(tmp_path / name))
    journal.record("process", marker=f"{_RUN}-twice")
    journal.record("mount", path=str(tmp_path / "no mount"))
    journal.record("netns", path=str(tmp_path / "no netns"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    for _ in range(2):
        assert reclaim(directory, keep_directory=True) == []
        assert [name for name in ("file", "tree") if (tmp_path / name).exists()] == []
    assert child.wait(10) == -9
    assert reclaim(directory) == []
    assert reclaim(directory) == []


def test_a_tree_of_any_depth_is_removed(directory: Path, tmp_path: Path) -> None:
    """A QEMU that a guest has taken over may make one in the directory of the vsock daemon's sockets."""
    tree = tmp_path / "tree"
    tree.mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("x")
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.symlink(tmp_path, "link", dir_fd=fd)
        os.mkdir("deep", 0o000, dir_fd=fd)
        below = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    Journal(directory).record("path", path=str(tree))
    with same_fds():
        assert reclaim(directory) == []
    assert not tree.exists()
    assert elsewhere.exists()


def test_processes_are_killed_by_their_marker_alone(directory: Path, marked: Marked) -> None:
    ours, second, other = marked(f"{_RUN}-a1"), marked(f"x={_RUN}-a1,y"), marked(f"{_RUN}-b1")
    Journal(directory).record("process", marker=f"{_RUN}-a1")
    with same_fds():
        assert reclaim(directory) == []
    assert (ours.wait(10), second.wait(10)) == (-9, -9)
    assert other.poll() is None


def test_the_one_who_reclaims_does_not_kill_itself(directory: Path) -> None:
    own = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    program = (
        "import sys; from shim.reclaim import reclaim; from shim.journal import Journal\n"
        "Journal(sys.argv[1]).record('process', marker=sys.argv[2])\n"
        "print(reclaim(sys.argv[1]))"
    )
    done = subprocess.run([own, "-c", program, directory, f"{_RUN}-self"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"[]\n")


def test_a_process_that_does_not_die_is_told(directory: Path, marked: Marked, monkeypatch: pytest.MonkeyPatch) -> None:
    marked(f"{_RUN}-undying")
    monkeypatch.setattr(module, "_send_kill", lambda _fd: None)  # what SIGKILL is to a process in an endless read
    monkeypatch.setattr(module, "_KILL_DEADLINE_S", 0.1)
    Journal(directory).record("process", marker=f"{_RUN}-undying")
    began = time.monotonic()
    with same_fds():
        (problem,) = reclaim(directory)
    assert time.monotonic() - began < 5
    assert problem.startswith(f"process {_RUN}-undying: still alive")
    assert (directory / FILE_NAME).exists()


def test_a_number_that_another_process_has_come_by_is_not_killed(marked: Marked) -> None:
    child = marked(f"{_RUN}-other")
    with same_fds():
        assert module.open_marked(child.pid, f"{_RUN}-first".encode()) is None
    assert child.poll() is None


def test_one_failure_does_not_stop_the_rest(
    directory: Path, tmp_path: Path, marked: Marked, mount: Callable[[Path, Path], None]
) -> None:
    first, busy, last = tmp_path / "first", tmp_path / "busy", tmp_path / "last"
    for path in (first, busy, last):
        path.mkdir()
    child = marked(f"{_RUN}-rest")
    mount(first, busy)
    journal = Journal(directory)
    journal.record("process", marker=f"{_RUN}-rest")
    for path in (last, busy):
        journal.record("path", path=str(path))
    assert reclaim(directory) == [f"path {busy}: {busy} is still mounted"]
    assert (last.exists(), busy.exists(), child.wait(10)) == (False, True, -9)
    assert (directory / FILE_NAME).exists()


def test_undoing_is_in_reverse_order(directory: Path, tmp_path: Path, mount: Callable[[Path, Path], None]) -> None:
    """A directory recorded before the mount in it is removed after that is gone."""
    source, tree = tmp_path / "source", tmp_path / "tree"
    for path in (source, tree / "point"):
        path.mkdir(parents=True)
    (source / "precious").write_text("x")
    journal = Journal(directory)
    journal.record("path", path=str(tree))
    journal.record("mount", path=str(tree / "point"))
    mount(source, tree / "point")
    mount(source, tree / "point")  # stacked
    assert reclaim(directory) == []
    assert not tree.exists()
    assert (source / "precious").read_text() == "x"


def test_a_draft_goes_with_its_maker_and_not_before(directory: Path, tmp_path: Path) -> None:
    left, growing = tmp_path / "left.erofs", tmp_path / "growing.erofs"
    for path in (left, growing):
        path.write_bytes(b"half")
        path.with_name(f"{path.name}.lock").touch()
        Journal(directory).record("draft", path=str(path))
    Journal(directory).record("draft", path=str(tmp_path / "never-begun.erofs"))
    with growing.with_name("growing.erofs.lock").open("rb") as maker, same_fds():
        fcntl.flock(maker, fcntl.LOCK_EX)
        assert reclaim(directory) == []
    assert sorted(os.listdir(tmp_path)) == ["growing.erofs", "growing.erofs.lock"]


@pytest.mark.parametrize(
    "name",
    ["point", "with blank", "tab\there", "back\\slash", "newline\n", "n\N{LATIN SMALL LETTER A WITH DIAERESIS}me"],
)
def test_a_mount_left_behind_is_never_deleted_through(
    directory: Path, tmp_path: Path, mount: Callable[[Path, Path], None], name: str
) -> None:
    source, tree = tmp_path / "source", tmp_path / f"tree {name}"
    point = tree / "deep" / name
    for path in (source, point):
        path.mkdir(parents=True)
    (source / "precious").write_text("x")
    mount(source, point)
    Journal(directory).record("path", path=str(tree))
    (problem,) = reclaim(directory)
    assert "is still mounted" in problem
    assert (source / "precious").read_text() == "x"
    subprocess.run(["umount", point], check=True)
    assert reclaim(directory) == []
    assert not tree.exists()
    assert (source / "precious").read_text() == "x"


def test_a_mount_in_the_directory_itself_that_no_journal_names(
    directory: Path, tmp_path: Path, mount: Callable[[Path, Path], None]
) -> None:
    source, point = tmp_path / "source", directory / "rootfs"
    for path in (source, point):
        path.mkdir()
    (source / "precious").write_text("x")
    mount(source, point)
    assert reclaim(directory) == [f"directory {directory}: {point} is still mounted"]
    assert (source / "precious").read_text() == "x"


def test_a_link_is_removed_and_not_followed(directory: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(kept)
    (directory / "inner").symlink_to(kept)
    Journal(directory).record("path", path=str(link))
    assert reclaim(directory) == []
    assert not link.is_symlink()
    assert (kept / "file").read_text() == "x"


def test_a_link_to_a_mount_point_is_not_followed(
    directory: Path, tmp_path: Path, mount: Callable[[Path, Path], None]
) -> None:
    source, point, link = tmp_path / "source", tmp_path / "point", tmp_path / "link"
    source.mkdir()
    point.mkdir()
    mount(source, point)
    link.symlink_to(point)
    Journal(directory).record("mount", path=str(link))
    assert reclaim(directory) == []
    assert _mounted(point)


def test_a_network_namespace(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "netns"
    journal = Journal(directory)
    journal.record("netns", path=str(path))
    path.touch()
    program = "import sys; open(sys.argv[1]).close()"
    subprocess.run(["unshare", "--net=" + str(path), sys.executable, "-c", program, "/dev/null"], check=True)
    assert _mounted(path)
    assert reclaim(directory) == []
    assert not path.exists()
    assert not _mounted(path)


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "process"}',
        '{"kind": "process", "marker": ""}',
        '{"kind": "path", "path": ""}',
        '{"kind": "path", "path": "."}',
        '{"kind": "path", "path": "/"}',
        '{"kind": "path"}',
        '{"kind": "file", "path": "/x"}',
    ],
)
def test_an_entry_that_reaches_further_than_meant_is_refused(directory: Path, marked: Marked, line: str) -> None:
    bystander = marked(f"{_RUN}-bystander")
    (directory / FILE_NAME).write_text(line + "\n")
    (problem,) = reclaim(directory)
    assert problem.startswith(f"journal of {directory}: ")
    assert bystander.poll() is None
    assert (directory / FILE_NAME).read_text() == line + "\n"


def test_a_half_written_line_is_passed_over(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    journal = Journal(directory)
    journal.record("path", path=str(tmp_path / "a"))
    with (directory / FILE_NAME).open("a") as file:
        file.write(f'{{"kind": "path", "path": "{tmp_path}/b"')
    assert reclaim(directory) == []
    assert not (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()


def test_the_lock_stays_with_the_directory(directory: Path) -> None:
    fd = claim(directory, deadline_s=1)
    Journal(directory).record("path", path="/nonexistent/x")
    (directory / "console").write_text("x")
    assert reclaim(directory, keep_directory=True) == []
    assert os.listdir(directory) == [LOCK_NAME]
    assert os.path.samestat(os.fstat(fd), os.stat(directory / LOCK_NAME))
    os.close(fd)


def test_the_lock_is_the_last_thing_removed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next shim could claim the directory and have its new journal removed by the last one."""
    os.close(claim(directory, deadline_s=1))
    for name in ("a", "journal", "zz"):
        (directory / name).write_text("")
    removed: list[str] = []
    unlink = os.unlink

    def watched(path: str) -> None:
        removed.append(os.path.basename(path))
        unlink(path)

    monkeypatch.setattr(os, "unlink", watched)
    assert reclaim(directory) == []
    assert removed[-1] == LOCK_NAME
    assert sorted(removed) == sorted(["a", "journal", "zz", LOCK_NAME])


def test_the_next_shim_may_come_between(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmdir = os.rmdir

    def late(path: str) -> None:
        Journal(path).record("path", path="/theirs")
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", late)
    assert reclaim(directory) == []
    assert Journal(directory).entries() == [{"kind": "path", "path": "/theirs"}]
