"""The anchor process as clients see it through /proc. Needs root."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from shim import anchor as module
from shim import title
from shim.anchor import Anchors
from shim.anchor_process import READY, Source, fork_source
from shim.journal import Journal
from tests.unit.shim.observe import same_fds, until

_KEY = "test"
_MARKER = "qemubox-anchor-test"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "empty"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    """A source that is ended and reaped."""
    source = fork_source(_KEY, Journal(tmp_path))
    yield source
    if Path(f"/proc/{source.pid}").exists():
        source.end()


@pytest.fixture
def anchors(source: Source) -> Anchors:
    return Anchors(source)


@pytest.fixture
def netns_fd() -> Iterator[int]:
    """An open file of a network namespace that somebody else is in."""
    command = ["/usr/bin/unshare", "--net", "/bin/sh", "-c", "echo; read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        fd = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        yield fd
        os.close(fd)
        holder.communicate(b"\n")


def _holds_nothing(pid: int) -> bool:
    return _open_files(pid) == {"/dev/null"}


def _open_files(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_what_clients_find_at_its_pid(root: Path, anchors: Anchors) -> None:
    anchor = await anchors.start(root, deadline_s=20)
    proc = Path(f"/proc/{anchor.pid}")
    for namespace in ("net", "mnt", "uts", "ipc"):
        assert os.readlink(proc / "ns" / namespace) != os.readlink(f"/proc/self/ns/{namespace}")
    # The host's mounts are not kept busy: there is one, an empty one.
    (mount,) = (proc / "mountinfo").read_text().splitlines()
    assert mount.split()[4] == "/"
    assert os.listdir(proc / "root") == []
    assert os.listdir(proc / "root" / "..") == []
    with pytest.raises(OSError, match="Read-only"):
        (proc / "root" / "file").write_text("what `nerdctl cp` would write")
    assert (proc / "cmdline").read_bytes() == _MARKER.encode() + b"\0"
    assert (proc / "comm").read_text() == "qemubox-anchor\n"
    assert (proc / "environ").read_bytes() == b""
    assert os.getsid(anchor.pid) == anchor.pid
    until(lambda: _holds_nothing(anchor.pid), "it has let go of all but its standard streams")
    await anchor.stop()
    until(lambda: not proc.exists(), "it is gone")
    assert os.listdir(root) == []


async def test_the_source_holds_nothing_and_shows_the_marker(
    tmp_path: Path, root: Path, source: Source, anchors: Anchors
) -> None:
    """Neither the shim's lock, nor its sockets, nor its working directory."""
    await (await anchors.start(root, deadline_s=20)).stop()
    proc = Path(f"/proc/{source.pid}")
    own = {name for name in _open_files(source.pid) if not name.startswith("socket:")}
    assert own == {"/dev/null"}
    assert len(os.listdir(proc / "fd")) == 4
    assert os.readlink(proc / "cwd") == "/"
    assert (proc / "cmdline").read_bytes() == _MARKER.encode() + b"\0"
    assert Journal(tmp_path).entries() == [{"kind": "process", "marker": _MARKER}]


async def test_several_at_once(root: Path, anchors: Anchors) -> None:
    """Further processes of a container have pids of their own."""
    several = await asyncio.gather(*(anchors.start(root, deadline_s=20) for _ in range(5)))
    assert len({anchor.pid for anchor in several}) == 5
    await several[2].stop()
    assert [_alive(anchor.pid) for anchor in several] == [True, True, False, True, True]
    for anchor in several:
        await anchor.stop()


async def test_in_a_network_namespace_that_is_there(root: Path, anchors: Anchors, netns_fd: int) -> None:
    """The container's, where clients find its addresses."""
    wanted, own = os.readlink(f"/proc/self/fd/{netns_fd}"), os.readlink("/proc/self/ns/net")
    with same_fds():
        several = await asyncio.gather(*(anchors.start(root, netns_fd=netns_fd, deadline_s=20) for _ in range(3)))
        alone = await anchors.start(root, deadline_s=20)
        assert {os.readlink(f"/proc/{anchor.pid}/ns/net") for anchor in several} == {wanted}
        assert os.readlink(f"/proc/{alone.pid}/ns/net") not in (wanted, own)
        for anchor in (*several, alone):
            until(partial(_holds_nothing, anchor.pid), "it has let go of the file")
            await anchor.stop()


async def test_what_is_no_network_namespace_is_told(root: Path, anchors: Anchors) -> None:
    other = os.open("/proc/self/ns/uts", os.O_RDONLY)
    with pytest.raises(OSError, match="join the network namespace: Invalid argument"):
        await anchors.start(root, netns_fd=other, deadline_s=20)
    os.close(other)
    await (await anchors.start(root, deadline_s=20)).stop()


async def test_stopping_twice(root: Path, anchors: Anchors) -> None:
    anchor = await anchors.start(root, deadline_s=20)
    await anchor.stop()
    await anchor.stop()


async def test_one_that_was_killed_can_be_stopped(root: Path, anchors: Anchors) -> None:
    anchor = await anchors.start(root, deadline_s=20)
    os.kill(anchor.pid, signal.SIGTERM)
    await anchor.stop()
    until(lambda: not Path(f"/proc/{anchor.pid}").exists(), "it is no zombie")


async def test_nothing_is_left_open(root: Path, anchors: Anchors) -> None:
    with same_fds():
        anchor = await anchors.start(root, deadline_s=20)
        await anchor.stop()
        with pytest.raises(OSError, match="No such file"):
            await anchors.start(root / "gone", deadline_s=20)


async def test_a_root_that_is_not_there_is_named(root: Path, anchors: Anchors) -> None:
    with pytest.raises(OSError, match=r"before it was ready: mount tmpfs: No such file"):
        await anchors.start(root / "gone", deadline_s=20)
    await (await anchors.start(root, deadline_s=20)).stop()  # the next one is none the worse


async def test_one_that_says_nothing_has_a_deadline(root: Path, anchors: Anchors, source: Source) -> None:
    os.kill(source.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        await anchors.start(root, deadline_s=0.1)
    os.kill(source.pid, signal.SIGCONT)
    await (await anchors.start(root, deadline_s=20)).stop()


async def test_one_that_does_not_become_ready_is_ended(
    root: Path, anchors: Anchors, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY", READY + b"more")
    with pytest.raises(TimeoutError):
        await anchors.start(root, deadline_s=0.5)
    assert Path(f"/proc/{source.pid}/task/{source.pid}/children").read_text() == ""


async def test_one_that_goes_into_another_network_namespace(root: Path, anchors: Anchors) -> None:
    first = await anchors.start(root, movable=True, deadline_s=20)
    second = await anchors.start(root, deadline_s=20)
    there = os.open(f"/proc/{second.pid}/ns/net", os.O_RDONLY)
    own = os.readlink(f"/proc/{first.pid}/ns/net")
    assert own != os.readlink(f"/proc/{second.pid}/ns/net")
    await first.move(there, deadline_s=20)
    assert os.readlink(f"/proc/{first.pid}/ns/net") == os.readlink(f"/proc/{second.pid}/ns/net")
    other = os.open("/proc/self/ns/uts", os.O_RDONLY)
    with pytest.raises(OSError, match="join the network namespace: Invalid argument"):
        await first.move(other, deadline_s=20)
    with pytest.raises(OSError, match="it has ended"):
        await first.move(there, deadline_s=20)
    for fd in (there, other):
        os.close(fd)
    for anchor in (first, second):
        await anchor.stop()


async def test_one_that_is_ended_while_it_moves_is_not_waited_for(root: Path, anchors: Anchors, netns_fd: int) -> None:
    """A container that is killed during its start: its Delete waits for the start to end."""
    anchor = await anchors.start(root, movable=True, deadline_s=20)
    os.kill(anchor.pid, signal.SIGSTOP)
    moving = asyncio.create_task(anchor.move(netns_fd, deadline_s=20))
    await asyncio.sleep(0)
    await anchor.stop()
    with pytest.raises(OSError, match="ended"):
        await asyncio.wait_for(moving, 5)


async def test_a_source_ends_when_its_shim_lets_go(source: Source) -> None:
    source.orders.close()
    assert _status(source.pid) == 0


async def test_a_source_can_be_ended_in_its_first_moment(tmp_path: Path) -> None:
    source = fork_source(_KEY, Journal(tmp_path))
    source.end()
    assert not Path(f"/proc/{source.pid}").exists()


async def test_a_source_that_is_gone_is_told(root: Path, anchors: Anchors, source: Source) -> None:
    os.kill(source.pid, signal.SIGKILL)
    until(lambda: not _alive(source.pid), "the source has ended")
    with pytest.raises(OSError, match=f"process {source.pid}, which makes them, has ended"):
        await anchors.start(root, deadline_s=20)


async def test_a_kernel_that_shows_no_marker_is_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would find an anchor without its marker."""

    def refuse(*_arguments: bytes) -> None:
        raise OSError(22, "prctl: not in this kernel")

    monkeypatch.setattr(title, "show", refuse)
    source = fork_source(_KEY, Journal(tmp_path))
    with pytest.raises(OSError, match="before it was ready: prctl: not in this kernel"):
        await Anchors(source).start(root, deadline_s=20)
    source.orders.close()
    assert _status(source.pid) == 0


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


_SHIM = """
import asyncio, os, sys
from pathlib import Path
from shim.anchor import Anchors
from shim.anchor_process import fork_source
from shim.journal import Journal

async def main():
    anchor = await Anchors(source).start(Path(sys.argv[1]), deadline_s=20)
    print(source.pid, anchor.pid, flush=True)
    await asyncio.Event().wait()

source = fork_source("orphan", Journal(os.path.dirname(sys.argv[1])))
asyncio.run(main())
"""


@pytest.mark.parametrize("victim", ["shim", "source"])
async def test_they_die_with_the_shim(root: Path, victim: str) -> None:
    shim = await asyncio.create_subprocess_exec(sys.executable, "-c", _SHIM, str(root), stdout=asyncio.subprocess.PIPE)
    assert shim.stdout is not None
    source, anchor = map(int, (await shim.stdout.readline()).split())
    assert _alive(source)
    assert _alive(anchor)
    os.kill(shim.pid if victim == "shim" else source, signal.SIGKILL)
    until(lambda: not _alive(source) and not _alive(anchor), "source and anchor have ended")
    if victim == "source":
        shim.kill()
    await shim.wait()
