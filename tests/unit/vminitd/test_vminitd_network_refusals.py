"""A network that cannot be: it is refused in the kernel's words, by the name of what cannot be."""

import re

import pytest

from api.guest_pb2 import Address, Interface, Neighbour, NetworkConfig, Route, Rule
from tests.unit.vminitd.configured_network import MAC, OTHER, configure, eth0, plug
from tests.unit.vminitd.network_namespace import Namespace
from ttrpc import StatusError
from vminitd import deadlines
from vminitd.errors import DeviceError, KernelError, RequestError

UP = (eth0(addresses=[Address(address="10.1.0.5/24")]),)
REFUSED = {
    "a name that another has": (
        NetworkConfig(interfaces=[eth0(name="far0")]),
        rf"interface far0 \(MAC {MAC}\), MTU 0: File exists",
    ),
    "no name": (NetworkConfig(interfaces=[eth0(name="a/b")]), r"interface a/b \(MAC .*\), MTU 0: Invalid argument"),
    "an MTU that it cannot have": (
        NetworkConfig(interfaces=[eth0(mtu=100_000)]),
        r"interface eth0 \(MAC .*\), MTU 100000: Invalid argument \(mtu greater than device maximum\)",
    ),
    "a gateway that nothing leads to": (
        NetworkConfig(interfaces=UP, routes=[Route(gateway="10.9.0.1", interface="eth0", family=4)]),
        r"route to all of IPv4 via 10\.9\.0\.1 dev eth0: Network is unreachable \(Nexthop has invalid gateway\)",
    ),
    "a route by an interface that is not there": (
        NetworkConfig(interfaces=UP, routes=[Route(destination="10.9.0.0/16", interface="eth1", family=4)]),
        r"route to 10\.9\.0\.0/16: there is no interface eth1",
    ),
    "a route twice": (
        NetworkConfig(interfaces=UP, routes=[Route(destination="10.9.0.0/16", interface="eth0", family=4)] * 2),
        r"route to 10\.9\.0\.0/16 dev eth0: File exists",
    ),
    "a destination with bits of a host": (
        NetworkConfig(interfaces=UP, routes=[Route(destination="10.9.0.1/16", interface="eth0", family=4)]),
        r"route to 10\.9\.0\.1/16 dev eth0: Invalid argument \(Invalid prefix for given prefix length\)",
    ),
    "an address twice": (
        NetworkConfig(interfaces=[eth0(addresses=[Address(address="10.1.0.5/24")] * 2)]),
        r"address 10\.1\.0\.5/24 of interface eth0: File exists( \(.*\))?",
    ),
    "a rule twice": (
        NetworkConfig(rules=[Rule(family=4, priority=9, table=9)] * 2),
        r"rule 9 of IPv4, to table 9: File exists",
    ),
    "a neighbour that cannot be one": (
        NetworkConfig(interfaces=[eth0(neighbours=[Neighbour(address="fe80::1", mac="02:00:00:00:00")])]),
        r"neighbour fe80::1 of interface eth0: '02:00:00:00:00' is not a MAC address",
    ),
    "a setting that there is not": (
        NetworkConfig(interfaces=UP, sysctls={"net.ipv4.nothing": "1"}),
        r"the sysctl net\.ipv4\.nothing cannot be set to '1': No such file or directory",
    ),
}


@pytest.mark.parametrize(("config", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_named_in_the_kernel_s_words(guest: Namespace, config: NetworkConfig, words: str) -> None:
    plug(guest, "found7", MAC, "far0")
    with pytest.raises(StatusError) as caught:
        configure(guest, config)
    assert isinstance(caught.value, KernelError | RequestError)
    assert re.fullmatch(words, caught.value.message), caught.value.message


def test_one_that_never_comes_is_named(guest: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "INTERFACE", 0.1)
    plug(guest, "found7", MAC, "far0")
    wanted = [eth0(), Interface(mac=OTHER, name="eth1")]
    with pytest.raises(
        DeviceError, match=rf"^DEADLINE_EXCEEDED: interface eth1 \(MAC {OTHER}\) did not appear within 0\.1 s$"
    ):
        configure(guest, NetworkConfig(interfaces=wanted))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (
            [eth0(), Interface(mac=MAC, name="eth1")],
            r"interface eth1 \(MAC .*: interface eth0 has that MAC address, too",
        ),
        ([eth0(mac="02:00")], "interface eth0: '02:00' is not a MAC address"),
        ([eth0(mac="02-00-00-00-00-01")], "is not a MAC address"),
    ],
)
def test_mac_addresses_are_looked_at_before_anything_is_waited_for(
    guest: Namespace, wanted: list[Interface], words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        configure(guest, NetworkConfig(interfaces=wanted))


def test_two_of_one_name_are_refused(guest: Namespace) -> None:
    plug(guest, "found7", MAC, "far0")
    plug(guest, "found8", OTHER, "far1")
    with pytest.raises(RequestError, match="two interfaces are to have that name"):
        configure(guest, NetworkConfig(interfaces=[eth0(), eth0(mac=OTHER)]))
    assert [each["ifname"] for each in guest.ask("link show dev found7")] == ["found7"]
