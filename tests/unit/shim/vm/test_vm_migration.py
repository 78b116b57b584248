"""Saving to and loading from an open file, against a peer that speaks QMP."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.errors import MachineError
from shim.vm import migration
from shim.vm.qmp import Qmp
from tests.unit.shim.vm.qmp_peer import QmpPeer


@pytest.fixture
async def qmp(peer: QmpPeer) -> AsyncIterator[Qmp]:
    made = Qmp(command_timeout_s=10)
    peer.returns["query-version"] = {"qemu": {"major": 7, "minor": 2, "micro": 22}}
    peer.start()
    await made.open(peer.ours)
    yield made
    await made.close(10)


@pytest.fixture
def fd(tmp_path: Path) -> int:
    path = tmp_path / "state"
    path.write_bytes(b"state")
    return os.open(path, os.O_RDONLY)


def say(peer: QmpPeer, command: str, *statuses: str) -> None:
    """QEMU tells how far it is before it answers the command, or after: it does both."""

    def tell() -> None:
        for status in statuses:
            peer.event("MIGRATION", status=status)

    peer.before_answer[command] = tell


async def test_save_is_over_when_qemu_says_so(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    say(peer, "migrate", "setup", "active", "completed")
    assert await migration.save(qmp, fd, 2, 10) == "7.2.22"
    assert peer.names[-3:] == ["migrate-set-parameters", "getfd", "migrate"]
    assert ("migrate", {"uri": "fd:template"}) in peer.commands
    assert peer.files == {"template": b"state"}
    assert os.lseek(fd, 0, os.SEEK_CUR) == 2
    os.close(fd)


async def test_load_waits_for_the_end(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    asked = asyncio.Event()
    peer.before_answer["migrate-incoming"] = asked.set
    loading = asyncio.create_task(migration.load(qmp, fd, 2, 10))
    await asked.wait()
    peer.event("MIGRATION", status="active")
    assert not loading.done()
    peer.event("MIGRATION", status="completed")
    await loading
    assert "migrate-set-parameters" not in peer.names
    capabilities = [{"capability": name, "state": True} for name in ("events", "x-ignore-shared")]
    assert ("migrate-set-capabilities", {"capabilities": capabilities}) in peer.commands
    os.close(fd)


async def test_a_failure_tells_qemu_s_reason(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    say(peer, "migrate", "setup", "failed")
    peer.returns["query-migrate"] = {"status": "failed", "error-desc": "No space left on device"}
    with pytest.raises(MachineError, match="QEMU's migrate failed: No space left on device"):
        await migration.save(qmp, fd, 2, 10)
    os.close(fd)


async def test_a_deadline_ends_the_wait(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    say(peer, "migrate-incoming", "setup", "active")
    with pytest.raises(MachineError, match=r"migrate-incoming was not over within 0\.1 s"):
        await migration.load(qmp, fd, 2, 0.1)
    os.close(fd)


async def test_a_newer_qemu_is_told_of_a_file(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    peer.returns["query-version"] = {"qemu": {"major": 10, "minor": 0, "micro": 2}}
    say(peer, "migrate-incoming", "completed")
    await migration.load(qmp, fd, 2, 10)
    assert peer.names[-2:] == ["add-fd", "migrate-incoming"]
    assert ("migrate-incoming", {"uri": "file:/dev/fdset/1000,offset=0x2"}) in peer.commands
    os.close(fd)


@pytest.mark.parametrize(
    ("version", "uri"), [((9, 0, 4), "fd:template"), ((9, 1, 0), "file:/dev/fdset/1000,offset=0x2")]
)
def test_which_qemu_is_told_how(version: tuple[int, int, int], uri: str) -> None:
    assert migration.uri(version, 2) == uri


async def test_a_qemu_without_a_version_is_not_trusted(qmp: Qmp, peer: QmpPeer, fd: int) -> None:
    peer.returns["query-version"] = {}
    with pytest.raises(MachineError, match="does not tell its version"):
        await migration.load(qmp, fd, 2, 10)
    os.close(fd)
