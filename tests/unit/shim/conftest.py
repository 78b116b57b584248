"""What the tests of the shim share."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.unit.shim.observe import Child, Spawn
from tests.unit.shim.program import Host
from tests.unit.shim.warm_service import WarmService


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start Python programs from their text; those that still run at the end are killed."""
    started: list[Child] = []

    def start(program: str, *words: str) -> Child:
        child = subprocess.Popen([sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(child)
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def host() -> Iterator[Host]:
    """A place for shims; what they leave is cleared away."""
    host = Host()
    yield host
    host.close()


@pytest.fixture
def service(host: Host) -> Iterator[WarmService]:
    """A service that the shims of `host` are asked of."""
    service = WarmService(host.service)
    service.start()
    yield service
    service.close()
