"""What tests of vminitd's I/O share: a reaper, and a host to dial."""

import ctypes
from collections.abc import AsyncIterator

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from vminitd.reaper import Reaper

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
