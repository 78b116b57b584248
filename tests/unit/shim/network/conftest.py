"""What the tests of the network's parts share: network namespaces that are theirs alone. Needs root."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.shim.network.places import Place, directory, place


@pytest.fixture
def parent() -> Iterator[Path]:
    """A directory for namespaces."""
    with directory() as path:
        yield path


@pytest.fixture
def inside(parent: Path) -> Iterator[Place]:
    """An empty namespace."""
    with place(parent, "inside") as found:
        yield found


@pytest.fixture
def outside(parent: Path) -> Iterator[Place]:
    """Another one."""
    with place(parent, "outside") as found:
        yield found


@pytest.fixture
def wired(inside: Place, outside: Place) -> Place:
    """`inside` with eth0, whose other end is `far` in `outside`, both up."""
    inside.script(
        f"link add eth0 address 02:00:00:00:00:01 mtu 1450 type veth peer name far netns {outside.path}",
        "link set eth0 up",
    )
    outside.ip("link set far up")
    return inside
