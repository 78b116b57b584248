"""What tests of vminitd's I/O share: a reaper, and a host to dial."""

import ctypes
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import World
from tests.unit.vminitd.network_namespace import Namespace, namespace
from vminitd.reaper import Reaper
from vminitd.uevent import Uevents

_PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """Orphans come to this process, as they come to PID 1: PR_SET_CHILD_SUBREAPER, prctl(2)."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    made = Reaper()
    yield made
    made.close()
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
async def host() -> AsyncIterator[DialledHost]:
    made = DialledHost()
    yield made
    for connection in made.connections.values():
        connection.close()


@pytest.fixture
async def world(tmp_path: Path, reaper: Reaper, host: DialledHost, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("vminitd.launch.RUN_DIR", str(tmp_path))
    # Only waited on by disks, which there are none of here.
    return World(tmp_path, reaper, host, Uevents.__new__(Uevents))


@pytest.fixture
def guest() -> Iterator[Namespace]:
    """A network namespace that vminitd's network is made in."""
    with namespace() as made:
        yield made
