"""A log in a file, and a task service that writes to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from shim.log import Logger, open_log
from tests.unit.shim.task.service_world import Shim


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Logger]:
    (tmp_path / "log").touch()
    yield open_log(tmp_path / "log", level="debug", namespace="ns", container_id="c")
    structlog.reset_defaults()


@pytest.fixture
async def shim(log: Logger) -> AsyncIterator[Shim]:
    shim = Shim(log)
    yield shim
    await shim.close()
