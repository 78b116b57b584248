"""What the shim sees in a network namespace, and vminitd makes of it: a namespace in which all is the same."""

import os
from collections.abc import Iterator
from typing import cast

import pytest

from shim.network.survey import survey
from tests.unit.vminitd.configured_network import MAC, configure, made, plug, settled
from tests.unit.vminitd.network_namespace import Namespace, namespace
from tests.unit.vminitd.network_scenarios import SCENARIOS
from vminitd.spec import Json


@pytest.fixture
def host() -> Iterator[Namespace]:
    """With the end of a veth, as a CNI plugin leaves it: its other end is in another namespace."""
    with namespace() as inside, namespace() as outside:
        inside.set("ipv6/conf/default/accept_dad", "0")
        inside.set("ipv6/conf/all/accept_dad", "0")
        plug(inside, "eth0", MAC, "far0")
        elsewhere = outside.run(_own)
        inside.ip(f"link set far0 netns /proc/{os.getpid()}/fd/{elsewhere}")
        os.close(elsewhere)
        outside.ip("link set far0 up")
        yield inside


def _own() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@pytest.mark.parametrize("commands", SCENARIOS.values(), ids=SCENARIOS)
def test_a_guest_gets_the_network_of_the_namespace(host: Namespace, commands: tuple[str, ...]) -> None:
    wanted = without_far_end(made(host, commands))
    own = host.run(_own)
    config = survey(own).message(1)
    os.close(own)
    with namespace() as guest:
        plug(guest, "found7", MAC, "far0")
        configure(guest, config)
        assert without_far_end(settled(guest, "eth0")) == wanted


def without_far_end(found: dict[str, object]) -> dict[str, object]:
    """A veth says where its other end is."""
    links = cast(list[Json], found["eth0"])
    return found | {"eth0": [{name: value for name, value in each.items() if name != "link"} for each in links]}
