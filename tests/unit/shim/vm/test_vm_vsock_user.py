"""The vsock daemon's life, with a stand-in that only listens."""

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path

import pytest

from shim.errors import HostError, MachineError, MissingPartError
from shim.journal import Journal
from shim.vm.process import Credentials
from shim.vm.vsock import CID_END, CID_FIRST, LinkMode, choose_mode, random_cid
from shim.vm.vsock_user import UserVsock

# Takes the arguments of vhost-device-vsock, listens where that listens, and on a byte dials as a guest would.
DAEMON = f"""#!{sys.executable} -IS
import socket, sys
device = dict(item.split("=", 1) for item in sys.argv[2].split(","))
listener = socket.socket(socket.AF_UNIX)
listener.bind(device["socket"])
listener.listen(1)
vhost, _ = listener.accept()
calls = []
while vhost.recv(1):
    call = socket.socket(socket.AF_UNIX)
    call.connect(device["uds-path"] + "_" + device["guest-cid"])
    call.sendall(bytes(16) + b"hello")
    calls.append(call)
"""


@pytest.fixture
def world_readable(tmp_path: Path) -> Path:
    """pytest's directories are for root alone; the daemon runs as nobody."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    return tmp_path


@pytest.fixture
def daemon(world_readable: Path) -> Path:
    path = world_readable / "daemon"
    path.write_text(DAEMON)
    path.chmod(0o755)
    return path


def backend(daemon: Path, credentials: Credentials, journal: Journal) -> UserVsock:
    return UserVsock(daemon=daemon, directory=daemon.parent / "vsock", credentials=credentials, journal=journal)


async def test_from_start_to_end(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    before = set(os.listdir("/proc/self/fd"))
    vsock = backend(daemon, credentials, journal)
    device = await vsock.prepare(20)
    directory = daemon.parent / "vsock"
    assert CID_FIRST <= device.cid < CID_END
    assert (directory.stat().st_uid, directory.stat().st_mode & 0o777) == (credentials.uid, 0o700)
    assert journal.entries()[:2] == [
        {"kind": "path", "path": str(directory)},
        {"kind": "process", "marker": str(directory / "vhost")},
    ]
    assert [entry["kind"] for entry in journal.entries()[2:]] == ["child"]
    os.write(device.vhost_user_fd, b"x")
    control = await vsock.control(20)
    assert await asyncio.get_running_loop().sock_recv(control, 9) == b"hello"
    control.close()
    await vsock.close(20)
    await vsock.close(20)
    assert not directory.exists()
    assert set(os.listdir("/proc/self/fd")) == before


async def test_only_the_daemon_may_dial(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    vsock = backend(daemon, credentials, journal)
    device = await vsock.prepare(20)
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(str(daemon.parent / "vsock" / f"host_{device.cid}"))
    stranger.sendall(bytes(16))
    with pytest.raises(MachineError, match="did not call"):
        await vsock.control(0.1)
    os.write(device.vhost_user_fd, b"x")
    (await vsock.control(20)).close()
    stranger.close()
    await vsock.close(20)


async def test_whoever_else_listens_is_not_given_to_qemu(
    daemon: Path, credentials: Credentials, journal: Journal
) -> None:
    """Another process of the same user could put a link to any socket in the place of the daemon's."""
    elsewhere = "import os\nif os.fork():\n    os.wait()\n    sys.exit()\nlistener.listen(1)"
    daemon.write_text(DAEMON.replace("listener.listen(1)", elsewhere))
    vsock = backend(daemon, credentials, journal)
    with pytest.raises(MachineError, match=r"vhost: it is not .*/daemon that listens there"):
        await vsock.prepare(20)
    await vsock.close(20)


async def test_nothing_is_given_away_by_name_once_the_directory_is_the_users(
    daemon: Path, credentials: Credentials, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chown(2) follows links: whoever owns the directory could have put one there."""
    given: list[tuple[str, int]] = []
    chown = os.chown

    def note(path: Path, uid: int, gid: int) -> None:
        given.append((path.name, path.parent.stat().st_uid))
        chown(path, uid, gid)

    monkeypatch.setattr(os, "chown", note)
    vsock = backend(daemon, credentials, journal)
    device = await vsock.prepare(20)
    await vsock.close(20)
    assert given == [(f"host_{device.cid}", os.getuid()), ("vsock", os.getuid())]


async def test_whatever_its_user_has_put_into_the_directory_goes(
    daemon: Path, credentials: Credentials, journal: Journal
) -> None:
    vsock = backend(daemon, credentials, journal)
    await vsock.prepare(20)
    directory = daemon.parent / "vsock"
    (directory / "some" / "more").mkdir(parents=True)
    (directory / "some" / "link").symlink_to(daemon)
    await vsock.close(20)
    assert not directory.exists()
    assert daemon.exists()


async def test_its_end_is_told(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    vsock = backend(daemon, credentials, journal)
    await vsock.prepare(20)
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    vsock.on_lost(lost.set_result)
    assert vsock._process is not None
    os.kill(vsock._process.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert await lost == "vhost-device-vsock was killed by SIGKILL"
    await vsock.close(20)


async def test_a_daemon_that_ends_at_once_is_quoted(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    daemon.write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    vsock = backend(daemon, credentials, journal)
    with pytest.raises(MachineError, match="vhost-device-vsock ended with exit status 3: no such luck"):
        await vsock.prepare(20)
    await vsock.close(20)
    assert not (daemon.parent / "vsock").exists()


async def test_a_daemon_that_never_listens(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    daemon.write_text("#!/bin/sh\nexec sleep 60\n")
    vsock = backend(daemon, credentials, journal)
    with pytest.raises(MachineError, match=r"was not ready within 0\.1 s"):
        await vsock.prepare(0.1)
    await vsock.close(20)


async def test_a_daemon_that_is_slow_between_bind_and_listen(
    daemon: Path, credentials: Credentials, journal: Journal
) -> None:
    daemon.write_text(DAEMON.replace("listener.listen(1)", "import time; time.sleep(0.05); listener.listen(1)"))
    vsock = backend(daemon, credentials, journal)
    await vsock.prepare(20)
    await vsock.close(20)


async def test_a_missing_daemon_is_named(tmp_path: Path, credentials: Credentials, journal: Journal) -> None:
    vsock = backend(tmp_path / "missing", credentials, journal)
    with pytest.raises(MissingPartError, match=re.escape(f"{tmp_path}/missing: no such program")):
        await vsock.prepare(20)
    assert journal.entries() == []
    await vsock.close(20)


async def test_a_directory_that_is_there_already(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    (daemon.parent / "vsock").mkdir()
    with pytest.raises(HostError, match="File exists"):
        await backend(daemon, credentials, journal).prepare(20)


async def test_before_it_is_prepared(daemon: Path, credentials: Credentials, journal: Journal) -> None:
    vsock = backend(daemon, credentials, journal)
    with pytest.raises(MachineError, match="not prepared"):
        await vsock.control(1)
    with pytest.raises(MachineError, match="not prepared"):
        vsock.expect(bytes(range(16)))


def test_cids_stay_in_their_range() -> None:
    assert all(CID_FIRST <= random_cid() < CID_END for _ in range(1000))


def test_the_mode() -> None:
    for mode in ("user", "kernel", "serial"):
        assert choose_mode(mode) == mode
    there = os.access("/dev/vhost-vsock", os.R_OK | os.W_OK)
    assert choose_mode("auto") is (LinkMode.KERNEL if there else LinkMode.SERIAL)
