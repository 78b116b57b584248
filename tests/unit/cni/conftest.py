"""What the tests of cni share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cni.fakes import Fakes
from tests.unit.cni.namespaces import network_namespace


@pytest.fixture(scope="session")
def empty_netns() -> Iterator[str]:
    """A network namespace that nothing is done in: the plugins are fakes."""
    with network_namespace() as path:
        yield path


@pytest.fixture
def fakes(tmp_path: Path, empty_netns: str) -> Fakes:
    """Plugins that are scripts."""
    return Fakes(tmp_path, empty_netns)


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace for one container."""
    with network_namespace() as path:
        yield path
