"""What is counted of frames that go through a TAP, compared with what clients read by themselves. Needs root."""

import os
import socket
from collections.abc import Iterator

import pytest

from shim.errors import HostError
from shim.network import counters, netns, tap
from shim.network.counters import Counters
from shim.network.survey import survey
from tests.unit.shim.network.places import Place

_HEADER = b"\0" * 10
_FRAME = bytes.fromhex("020000000001 020000000077 88b5")


@pytest.fixture
def wire(outside: Place) -> Iterator[socket.socket]:
    """Frames into the other end of eth0."""
    with netns.within(outside.fd, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sock:
        sock.bind(("far", 0))
        yield sock


@pytest.fixture
def guest(wired: Place) -> Iterator[int]:
    """Where QEMU would be. What the kernels say by themselves has been counted."""
    wired.run("/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    (interface,) = survey(wired.fd).interfaces
    (fd,) = tap.connect(wired.fd, interface, name=tap.name_of("eth0", interface.index), queues=1)
    yield fd
    os.close(fd)


def _difference(before: Counters, after: Counters) -> tuple[int, ...]:
    names = ("rx_bytes", "rx_packets", "rx_dropped", "tx_bytes", "tx_packets", "tx_dropped")
    return tuple(getattr(after, name) - getattr(before, name) for name in names)


def _as_iproute2_has_it(place: Place) -> tuple[object, ...]:
    (link,) = place.json("-statistics link show dev eth0")
    statistics = link["stats64"]
    assert isinstance(statistics, dict)
    return tuple(statistics[way][what] for way in ("rx", "tx") for what in ("bytes", "packets"))


def test_both_directions_are_the_containers(wired: Place, wire: socket.socket, guest: int) -> None:
    (before,) = counters.read(wired.fd)
    for _ in range(5):
        wire.send(_FRAME + b"x" * 86)
    for _ in range(3):
        os.write(guest, _HEADER + _FRAME + b"y" * 186)
    (after,) = counters.read(wired.fd)
    assert after.name == "eth0"
    assert _difference(before, after) == (5 * 100, 5, 0, 3 * 200, 3, 0)
    # Kubernetes' and other clients' source, the namespace's own eth0, says the same.
    assert _as_iproute2_has_it(wired) == (after.rx_bytes, after.rx_packets, after.tx_bytes, after.tx_packets)


def test_what_the_guest_does_not_take_is_dropped(wired: Place, wire: socket.socket, guest: int) -> None:
    """By the TAP, which only the host knows of."""
    assert guest >= 0
    (before,) = counters.read(wired.fd)
    for _ in range(1600):
        wire.send(_FRAME)
    (after,) = counters.read(wired.fd)
    _, received, dropped, _, _, _ = _difference(before, after)
    assert received == 1600
    assert dropped > 0


def test_nerdctl_does_not_count_the_tap(wired: Place, guest: int) -> None:
    """It adds up what is up and not called "lo...", and shows the first of these as the container's interface."""
    assert guest >= 0
    assert [name for name in wired.names() if not name.startswith("lo")] == ["eth0"]
    assert [name for name in wired.names() if name.startswith("lo")] == ["lo", "loqb-eth0"]


def test_without_a_machine(wired: Place, inside: Place) -> None:
    assert [each.name for each in counters.read(wired.fd)] == ["eth0"]
    inside.ip("link delete eth0")
    assert counters.read(inside.fd) == []


def test_what_is_no_namespace() -> None:
    fd = os.open("/", os.O_RDONLY)
    with pytest.raises(HostError, match="counters of the network cannot be read"):
        counters.read(fd)
    os.close(fd)
