"""The anchor process as clients see it through /proc. Needs root."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from shim import anchor as module
from shim.anchor import start_anchor
from tests.unit.shim.observe import same_fds, until

_MARKER = "qemubox-test-anchor"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "empty"
    path.mkdir()
    return path


def _open_files(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_what_clients_find_at_its_pid(root: Path) -> None:
    anchor = await start_anchor(_MARKER, root, deadline_s=20)
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
    assert _MARKER in (proc / "cmdline").read_bytes().decode().split("\0")
    assert (proc / "environ").read_bytes() == b""
    assert os.getsid(anchor.pid) == anchor.pid
    until(lambda: _open_files(anchor.pid) == {"/dev/null"}, "it has let go of its standard streams")
    await anchor.stop()
    assert not proc.exists()
    assert os.listdir(root) == []


async def test_stopping_twice(root: Path) -> None:
    anchor = await start_anchor(_MARKER, root, deadline_s=20)
    await anchor.stop()
    await anchor.stop()


async def test_one_that_was_killed_can_be_stopped(root: Path) -> None:
    anchor = await start_anchor(_MARKER, root, deadline_s=20)
    os.kill(anchor.pid, signal.SIGTERM)
    await anchor.stop()
    assert not Path(f"/proc/{anchor.pid}").exists()


async def test_nothing_is_left_open(root: Path) -> None:
    await (await start_anchor(_MARKER, root, deadline_s=20)).stop()  # the loop's own first time
    with same_fds():
        anchor = await start_anchor(_MARKER, root, deadline_s=20)
        await anchor.stop()
        await asyncio.sleep(0)


async def test_a_root_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(OSError, match=r"before it was ready: .*mount tmpfs: No such file"):
        await start_anchor(_MARKER, root / "gone", deadline_s=20)


async def test_a_program_that_says_nothing_has_a_deadline(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("import signal\nsignal.pause()\n")
    monkeypatch.setattr(module, "_PROGRAM", silent)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await start_anchor(_MARKER, root, deadline_s=0.2)
    assert time.monotonic() - began < 10
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and str(silent) in _words(int(pid))]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


_PARENT = """
import asyncio, sys
from pathlib import Path
from shim.anchor import start_anchor

async def main():
    anchor = await start_anchor("qemubox-test-orphan", Path(sys.argv[1]), deadline_s=20)
    print(anchor.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_it_dies_with_its_parent(root: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(root), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert _alive(pid)
    parent.kill()
    await parent.wait()
    until(lambda: not _alive(pid), "the anchor has ended")


async def test_it_does_not_outlive_a_parent_that_died_first(root: Path) -> None:
    """Its parent is another process than the one that it was told."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-IS", str(module._PROGRAM), _MARKER, str(os.getppid()), str(root)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, output) == (1, b"")
