"""What the tests of shim/vm share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.journal import Journal
from shim.vm.process import Credentials
from tests.unit.shim.vm.qmp_peer import QmpPeer


@pytest.fixture
async def peer() -> AsyncIterator[QmpPeer]:
    """A QMP peer; the test starts it."""
    made = QmpPeer()
    yield made
    await made.stop()


@pytest.fixture
def credentials() -> Credentials:
    """A user with no rights: nobody."""
    return Credentials(uid=65534, gid=65534)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """An empty journal."""
    (tmp_path / "journal-directory").mkdir()
    return Journal(tmp_path / "journal-directory")
