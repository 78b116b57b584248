"""What virtiofsd finds where it is started, and what becomes of it. Needs root; virtiofsd is a shell's script."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import psutil
import pytest
import structlog

from shim import deadlines
from shim.anchor_process import Source, fork_source
from shim.errors import HostError, MissingPartError, ResourceError, SpecError
from shim.journal import Journal
from shim.log import Logger
from shim.mounts import Volume
from shim.reclaim import start_time
from shim.volumes.daemon import Daemon
from shim.volumes.share import Share
from tests.unit.shim.observe import until

_HEAD = '#!/bin/sh\n[ "$1" != --version ] || exec echo virtiofsd 1.99\n'
# It says what it sees, and goes on until it is ended.
_LOOKS = (
    'cut -d " " -f 5,6 /proc/self/mountinfo; ls /sys; echo pid $$; ls -l /proc/$$/fd | grep -c socket;'
    " id -u; pwd; echo x 2>&- >/sys/0/new || echo refused; cat /sys/1; echo done >&2; exec sleep 1000"
)


class New(Protocol):
    """Makes a share of these volumes."""

    def __call__(self, volumes: list[Volume], *, configured: str = "") -> Share: ...


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    source = fork_source("test", Journal(tmp_path))
    yield source
    if Path(f"/proc/{source.pid}").exists():
        source.end()


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    path = tmp_path / "virtiofsd"
    path.write_text(f"{_HEAD}{_LOOKS}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def volumes(tmp_path: Path) -> list[Volume]:
    """A directory that may not be written to, and a file that may."""
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("in the file\n")
    return [
        Volume("0", tmp_path / "directory", read_only=True, recursive=False, is_file=False),
        Volume("1", tmp_path / "file", read_only=False, recursive=True, is_file=True),
    ]


@pytest.fixture
async def new(tmp_path: Path, source: Source, fake: Path) -> AsyncIterator[New]:
    """Makes a share; those that were made are closed, and leave no descriptor."""
    before = set(os.listdir("/proc/self/fd"))
    made: list[Share] = []
    log: Logger = structlog.get_logger()

    def make(volumes: list[Volume], *, configured: str = "") -> Share:
        made.append(
            Share(
                volumes,
                configured=configured or str(fake),
                directory=tmp_path,
                source=source,
                journal=Journal(tmp_path),
                log=log,
            )
        )
        return made[-1]

    yield make
    for share in made:
        await share.close()
    assert set(os.listdir("/proc/self/fd")) == before


async def _said(daemon: Daemon) -> list[str]:
    """All that it says until "done"."""
    await asyncio.to_thread(until, lambda: daemon.stderr.endswith("done"), "it is done")
    return daemon.stderr.splitlines()


async def test_what_it_finds(new: New, volumes: list[Volume], tmp_path: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    daemon = await new(volumes).serve()
    said = await _said(daemon)
    mounts = dict(sorted(line.split(" ") for line in said if line.startswith("/") and " " in line))
    assert [*mounts] == ["/", "/proc", "/sys", "/sys/0", "/sys/1"]
    assert [mount.split(",")[0] for mount in mounts.values()] == ["ro", "rw", "ro", "ro", "rw"]
    assert all({"nosuid", "nodev", "noexec"} <= {*mounts[place].split(",")} for place in ("/sys", "/sys/0", "/sys/1"))
    # One socket, where it listens; process 1 of its namespace; the root user; in the root directory.
    assert said[len(mounts) :] == ["0", "1", "pid 1", "1", "0", "/", "refused", "in the file", "done"]
    assert Path("/proc/self/mountinfo").read_text() == before
    assert f"{daemon.pid} {start_time(daemon.pid)}" in [entry["marker"] for entry in Journal(tmp_path).entries()]
    assert not (tmp_path / "volumes").exists()


async def test_it_is_connected_to_us(new: New, volumes: list[Volume], fake: Path) -> None:
    """By the connection that its listening socket has waiting."""
    fake.write_text(
        f"{_HEAD}" + 'exec /usr/bin/python3 -c "import socket, sys; s = socket.socket(fileno=int('
        'sys.argv[-1][5:])); c, _ = s.accept(); c.send(c.recv(100)); c.recv(1)" "$@"\n'
    )
    daemon = await new(volumes).serve()
    daemon.connection.setblocking(False)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        await loop.sock_sendall(daemon.connection, b"hello")
        assert await loop.sock_recv(daemon.connection, 100) == b"hello"
    daemon.connection.close()
    async with asyncio.timeout(20):
        await daemon.exited


async def test_one_for_each_machine(new: New, volumes: list[Volume]) -> None:
    """All of them go with the share."""
    share = new(volumes)
    share.begin()
    first, second = await share.serve(), await share.serve()
    assert first.pid != second.pid
    await share.close()
    assert not Path(f"/proc/{first.pid}").exists()
    assert not Path(f"/proc/{second.pid}").exists()


def _sleeping() -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "98765"]]


async def test_its_children_end_with_it(new: New, volumes: list[Volume], fake: Path) -> None:
    """Also those in a session of their own."""
    child = "subprocess.Popen(['sleep', '98765'], start_new_session=True)"
    program = f"import subprocess; child = {child}; print('done', flush=True); child.wait()"
    fake.write_text(f'{_HEAD}exec /usr/bin/python3 -c "{program}"\n')
    daemon = await new(volumes).serve()
    await _said(daemon)
    until(lambda: len(_sleeping()) == 1, "it has a child")
    await daemon.stop()
    assert _sleeping() == []


async def test_its_loss_is_told_with_its_last_words(
    new: New, volumes: list[Volume], fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "VOLUMES_LOST_S", 0.01)
    fake.write_text(f"{_HEAD}read line </sys/1; echo cannot go on: $line\n")
    daemon = await new(volumes).serve()
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    daemon.on_lost(lost.set_result)
    async with asyncio.timeout(20):
        assert await lost == "virtiofsd has ended | cannot go on: in the file"


async def test_it_ends_with_the_source(new: New, volumes: list[Volume], source: Source) -> None:
    """And so with the shim, whose child that is."""
    daemon = await new(volumes).serve()
    os.kill(source.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await daemon.exited


async def test_none_is_wanted(new: New) -> None:
    share = new([])
    share.begin()
    assert not share.wanted


async def test_what_is_wrong_is_told(new: New, volumes: list[Volume], tmp_path: Path, fake: Path) -> None:
    gone = Volume("2", tmp_path / "gone", read_only=False, recursive=True, is_file=False)
    with pytest.raises(SpecError, match=f"cannot mount {tmp_path}/gone: No such file or directory"):
        await new([*volumes, gone]).serve()
    for source, is_file in ((tmp_path / "directory", True), (tmp_path / "file", False)):
        with pytest.raises(SpecError, match=r"cannot mount .*: (it is no regular file any more|Not a directory)"):
            await new([Volume("0", source, read_only=False, recursive=True, is_file=is_file)]).serve()
    (tmp_path / "link").symlink_to("directory")
    with pytest.raises(SpecError, match="something else has been put in its place meanwhile"):
        await new([replace(volumes[0], source=tmp_path / "link")]).serve()
    with pytest.raises(ResourceError, match="has 251 volumes, and 250 at most"):
        await new(
            [Volume(str(n), tmp_path, read_only=True, recursive=False, is_file=False) for n in range(251)]
        ).serve()
    with pytest.raises(MissingPartError, match=r"volumes\.daemon = '/nowhere'"):
        await new(volumes, configured="/nowhere").serve()


async def test_a_second_try_opens_nothing_twice(new: New, volumes: list[Volume], fake: Path) -> None:
    fake.write_text("#!/bin/sh\n")
    share = new(volumes)
    for _ in range(2):
        with pytest.raises(HostError, match="no virtiofsd"):
            await share.serve()


async def test_what_fails_in_the_fork_is_told(new: New, volumes: list[Volume], source: Source) -> None:
    with pytest.raises(HostError, match="cannot start virtiofsd: "):
        await new([volumes[0], replace(volumes[0], name="0/0")]).serve()
    os.kill(source.pid, signal.SIGKILL)
    until(lambda: psutil.Process(source.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
    with pytest.raises(HostError, match=f"cannot start virtiofsd: process {source.pid}, which forks it, has ended"):
        await new(volumes).serve()


async def test_what_has_ended_before_it_is_told(
    new: New, volumes: list[Volume], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each descriptor is closed once: another thread may have the number by then."""
    with monkeypatch.context() as patched:
        patched.setattr(Daemon, "ended", True)
        with pytest.raises(HostError, match="cannot start virtiofsd: what was to become it has ended"):
            await new(volumes).serve()
    with monkeypatch.context() as patched:
        patched.setattr("shim.volumes.daemon.open_marked", lambda *_: None)
        with pytest.raises(HostError, match="cannot start virtiofsd: what was to become it has ended"):
            await new(volumes).serve()
    await new(volumes).serve()


async def test_who_goes_before_it_is_answered_leaves_the_source(source: Source) -> None:
    """Anchors die with it."""
    orders, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    orders.close()
    source.orders.setblocking(True)
    socket.send_fds(source.orders, [b"volumes"], [answer.fileno()])
    answer.close()
    orders, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    orders.settimeout(20)
    with orders, answer:
        socket.send_fds(source.orders, [b"volumes"], [answer.fileno()])
        answer.close()
        assert int(orders.recv(100))


async def test_two_hundred_and_fifty(new: New, tmp_path: Path, fake: Path) -> None:
    fake.write_text(f"{_HEAD}ls /sys | wc -l; echo done >&2; exec sleep 1000\n")
    share = new([Volume(str(n), tmp_path, read_only=True, recursive=False, is_file=False) for n in range(250)])
    assert await _said(await share.serve()) == ["250", "done"]


async def test_a_shim_that_goes_before_it_is_told_leaves_none(source: Source) -> None:
    """What was forked for virtiofsd ends when nobody is left who could tell it what to serve."""
    orders, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with orders:
        source.orders.setblocking(True)
        socket.send_fds(source.orders, [b"volumes"], [answer.fileno()])
        answer.close()
        pid = int(orders.recv(100))
        assert Path(f"/proc/{pid}").exists()
    until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
