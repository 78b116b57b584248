"""What is read out of namespaces that iproute2 has set up, and what is refused. Needs root."""

import ipaddress
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import guest_pb2
from shim.errors import HostError, SpecError
from shim.network import links, routes, survey
from shim.network.survey import INTERFACES_MAX, Address, Interface, Neighbour, Route, Rule
from tests.unit.shim.network.places import Place, unmount
from tests.unit.shim.observe import same_fds, until


def _survey(place: Place) -> survey.Survey:
    with same_fds():
        return survey.survey(place.fd)


def _eth0(place: Place) -> Interface:
    (interface,) = _survey(place).interfaces
    return interface


def test_an_empty_namespace(inside: Place) -> None:
    assert _survey(inside) == survey.Survey()
    inside.ip("link set lo down")
    assert _survey(inside) == survey.Survey()


def test_an_interface(wired: Place) -> None:
    wired.ip("link set eth0 promisc on allmulticast on txqueuelen 77")
    wired.ip("address add fe80::1/64 dev eth0 nodad")
    interface = _eth0(wired)
    assert (interface.name, interface.mac, interface.mtu, interface.kind) == ("eth0", "02:00:00:00:00:01", 1450, "veth")
    assert (interface.up, interface.promiscuous, interface.all_multicast) == (True, True, True)
    assert (interface.tx_queue_length, interface.ipv6, interface.link_local) == (77, True, False)


def test_one_that_is_down(wired: Place) -> None:
    wired.ip("link set eth0 down")
    interface = _eth0(wired)
    assert (interface.up, interface.ipv6, interface.link_local, interface.addresses) == (False, True, True, ())


def test_one_whose_ipv6_is_off(wired: Place) -> None:
    wired.run("/bin/sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    interface = _eth0(wired)
    assert (interface.ipv6, interface.link_local) == (False, False)


def test_one_that_is_to_have_no_link_local_address(wired: Place) -> None:
    wired.script("link set eth0 down", "link set eth0 addrgenmode none", "link set eth0 up")
    interface = _eth0(wired)
    assert (interface.ipv6, interface.link_local) == (True, False)


def test_addresses(wired: Place) -> None:
    """With scopes, peers and broadcasts; those that are tentative or deprecated, too."""
    wired.script(
        "link set eth0 down",
        "link set eth0 addrgenmode none",
        "link set eth0 up",
        "address add 10.1.0.2/24 broadcast 10.1.0.255 dev eth0",
        "address add 10.2.0.2 peer 10.2.0.1/32 scope link dev eth0",
        "address add 10.1.0.3/24 dev eth0",
        "address add 192.0.2.1/32 dev eth0",
        "address add fd00::2/64 dev eth0",
        "address add fd00::3/64 dev eth0 preferred_lft 0",
        "address add fd00::4 peer fd00:1::/64 dev eth0",
    )
    assert set(_eth0(wired).addresses) == {
        Address("10.1.0.2/24", broadcast="10.1.0.255"),
        Address("10.2.0.2/32", peer="10.2.0.1", scope=253),
        Address("10.1.0.3/24"),
        Address("192.0.2.1/32"),
        Address("fd00::2/64"),
        Address("fd00::3/64"),
        Address("fd00::4/64", peer="fd00:1::"),
    }


def test_addresses_set_in_this_order_stand_as_they_did(wired: Place, outside: Place) -> None:
    """Which is the primary one, and which the source of a connection, depends on it."""
    wired.script(
        "link set eth0 down",
        "link set eth0 addrgenmode none",
        "link set eth0 up",
        *(f"address add {each} dev eth0" for each in ("10.1.0.9/24", "10.1.0.2/24", "10.7.0.1/16", "10.1.0.5/24")),
        *(f"address add fd00::{each}/64 dev eth0 nodad" for each in (9, 2, 5)),
        "address add fe80::7/64 dev eth0 nodad",
    )
    outside.script("link add eth0 type veth peer name other", "link set eth0 addrgenmode none", "link set eth0 up")
    outside.script(
        *(f"address add {each.address} dev eth0 nodad" for each in _eth0(wired).addresses if ":" in each.address)
    )
    outside.script(
        *(f"address add {each.address} dev eth0" for each in _eth0(wired).addresses if ":" not in each.address)
    )

    def listed(place: Place) -> list[tuple[object, ...]]:
        (link,) = place.json("address show dev eth0")
        addresses = link["addr_info"]
        assert isinstance(addresses, list)
        return [(each["local"], each["prefixlen"], each.get("secondary", False)) for each in addresses]

    assert listed(outside) == listed(wired)


def test_neighbours_that_stay(wired: Place) -> None:
    wired.script(
        "address add 10.1.0.2/24 dev eth0",
        "neighbour add 10.1.0.7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent",
        "neighbour add fd00::7 lladdr 02:00:00:00:00:07 dev eth0 nud permanent",
        "neighbour add 10.1.0.8 lladdr 02:00:00:00:00:08 dev eth0 nud reachable",
        "neighbour add proxy 10.1.0.9 dev eth0",
    )
    assert set(_eth0(wired).neighbours) == {
        Neighbour("10.1.0.7", "02:00:00:00:00:07"),
        Neighbour("fd00::7", "02:00:00:00:00:07"),
    }


def test_routes(wired: Place) -> None:
    """Of every table, with what they have; without what the kernel makes for the addresses."""
    wired.script(
        "address add 10.1.0.2/24 dev eth0",
        "address add fd00::2/64 dev eth0 nodad",
        "route add 10.1.9.1 dev eth0 scope link",
        "route add default via 10.1.0.1 src 10.1.0.2 mtu 1400",
        "route add default via 10.7.0.1 dev eth0 onlink metric 7 table 100",
        "route add default via 10.1.0.1 table 1000",
        "route add default via fd00::1 metric 9",
        "route add fd01::/64 via fe80::1 dev eth0",
        "route add blackhole 10.66.0.0/16",
        "route add unreachable 10.67.0.0/16 metric 5",
        "route add prohibit fd66::/64",
    )
    assert set(_survey(wired).routes) == {
        Route(4, "10.1.9.1/32", interface="eth0", scope=253),
        Route(4, gateway="10.1.0.1", interface="eth0", source="10.1.0.2", mtu=1400),
        Route(4, gateway="10.7.0.1", interface="eth0", on_link=True, metric=7, table=100),
        Route(4, gateway="10.1.0.1", interface="eth0", table=1000),
        Route(6, gateway="fd00::1", interface="eth0", metric=9),
        Route(6, "fd01::/64", gateway="fe80::1", interface="eth0", metric=1024),
        Route(4, "10.66.0.0/16", type=6),
        Route(4, "10.67.0.0/16", type=7, metric=5),
        Route(6, "fd66::/64", type=8, metric=1024),
    }


def test_a_route_of_ipv6_with_several_ways_is_several_routes(wired: Place) -> None:
    """As two networks make it that set a default route each."""
    wired.script(
        "link add eth1 mtu 1450 type veth peer name other",
        "link set eth1 up",
        "address add fd00::2/64 dev eth0 nodad",
        "route append fd09::/64 via fd00::1",
        "route append fd09::/64 via fe80::1 dev eth1",
        "route append fd09::/64 via fd00::3 metric 7",
    )
    assert {route for route in _survey(wired).routes if route.destination} == {
        Route(6, "fd09::/64", "fd00::1", "eth0", metric=1024),
        Route(6, "fd09::/64", "fe80::1", "eth1", metric=1024),
        Route(6, "fd09::/64", "fd00::3", "eth0", metric=7),
    }


def test_what_a_gateway_is_reached_by_comes_first(wired: Place) -> None:
    """As the CNI plugin ptp sets it up: the kernel's route to the network is gone."""
    wired.script(
        "address add 10.1.0.2/24 dev eth0",
        "route delete 10.1.0.0/24 dev eth0",
        "route add 10.1.0.1 dev eth0 scope link",
        "route add 10.1.0.0/24 via 10.1.0.1",
        "route add default via 10.1.0.1",
    )
    found = _survey(wired).routes
    assert [route.destination for route in found] == ["10.1.0.1/32", "", "10.1.0.0/24"]
    # In that order iproute2 can set them, too.
    wired.ip("route flush table main")
    for route in found:
        via = f"via {route.gateway}" if route.gateway else "scope link"
        wired.ip(f"route add {route.destination or 'default'} {via} dev eth0")


def test_rules(wired: Place) -> None:
    wired.ip("rule add from 10.1.0.2 table 100 priority 50")
    wired.ip("-6 rule add to fd00::/64 iif eth0 oif lo fwmark 0x10/0xf0 table 1000 priority 60")
    assert _survey(wired).rules == (
        Rule(4, 50, 100, source="10.1.0.2/32"),
        Rule(6, 60, 1000, destination="fd00::/64", input="eth0", output="lo", mark=0x10, mask=0xF0),
    )


def test_ports_of_a_bridge_inside_are_its_own_matter(inside: Place) -> None:
    inside.script(
        "link add br0 address 02:00:00:00:00:0b type bridge",
        "link add eth0 type veth peer name eth1",
        "link set eth0 master br0",
        "link set eth0 up",
        "link set br0 up",
        "link set eth1 up",
    )
    assert {interface.name for interface in _survey(inside).interfaces} == {"br0", "eth1"}


def test_macvlan(inside: Place, outside: Place) -> None:
    """What it lies upon is in another namespace, as the CNI plugin leaves it."""
    outside.ip("link add base type veth peer name other")
    outside.ip(f"link add link base name eth0 netns {inside.path} type macvlan mode bridge")
    assert _eth0(inside).kind == "macvlan"


def _refused(place: Place, what: str) -> SpecError:
    with same_fds(), pytest.raises(SpecError, match=what) as refused:
        survey.survey(place.fd)
    assert refused.value.hint
    return refused.value


def test_an_interface_upon_another_is_refused(wired: Place) -> None:
    wired.ip("link add link eth0 name upper type macvlan mode bridge")
    _refused(wired, r"interface upper \(macvlan\) cannot be connected .* upon eth0")


def test_two_of_one_mac_are_refused(wired: Place) -> None:
    wired.ip("link add eth1 address 02:00:00:00:00:01 type veth peer name other")
    _refused(wired, "interface eth1 .* it has the MAC address 02:00:00:00:00:01, as eth0")


def test_a_tap_is_refused(inside: Place) -> None:
    """Whoever has it is not there to take frames in our place; of ours it is said whose it is."""
    inside.ip("tuntap add dev tap0 mode tap")
    _refused(inside, r"interface tap0 \(tun\) cannot be connected .* another program")
    inside.ip("link set tap0 name loqb-eth0")
    _refused(inside, "interface loqb-eth0: .* another virtual machine")


def test_what_is_not_ethernet_is_refused_if_it_is_up(inside: Place) -> None:
    inside.ip("tuntap add dev tun0 mode tun")
    _refused(inside, r"interface tun0 \(tun\) cannot be connected")


def test_an_address_that_another_has_is_refused(wired: Place, outside: Place) -> None:
    """The kernel finds out, and CNI's plugins go on all the same."""
    outside.ip("address add fd00::2/64 dev far nodad")
    wired.ip("address add fd00::2/64 dev eth0")
    until(lambda: "dadfailed" in wired.ip("address show dev eth0"), "the kernel finds out")
    _refused(wired, "address fd00::2 of interface eth0 is in use")


def test_more_interfaces_than_slots(inside: Place) -> None:
    inside.script(*(f"link add a{number} type veth peer name b{number}" for number in range(INTERFACES_MAX // 2)))
    assert len(_survey(inside).interfaces) == INTERFACES_MAX
    inside.ip("link add c0 type veth peer name c1")
    _refused(inside, f"has {INTERFACES_MAX + 2} interfaces, a virtual machine has at most {INTERFACES_MAX}")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("route add 10.9.0.0/16 nexthop via 10.1.0.1 dev eth0 nexthop via 10.1.0.3 dev eth0", "several next hops"),
        ("route add fd09::/64 nexthop via fd00::1 weight 2 nexthop via fd00::3", "next hops have weights"),
        ("route add 10.9.0.0/16 via inet6 fd00::1 dev eth0", "of another address family"),
        ("route add 10.9.0.0/16 tos 0x10 via 10.1.0.1", "type of service 0x10"),
        ("route add fd09::/64 from fd05::/64 via fd00::1 dev eth0", "some source addresses"),
        ("route add local 10.9.0.0/16 dev lo table 100", "of type 2"),
    ],
)
def test_routes_that_are_refused(wired: Place, command: str, reason: str) -> None:
    wired.script("address add 10.1.0.2/24 dev eth0", "address add fd00::2/64 dev eth0 nodad", command)
    assert "plain routes" in _refused(wired, rf"route to .* cannot be had .*{reason}").hint


def test_a_route_by_an_interface_that_is_not_connected(inside: Place) -> None:
    inside.script(
        "link add br0 type bridge",
        "link add eth0 type veth peer name eth1",
        "link set eth0 master br0",
        "link set eth0 up",
        "link set eth1 up",
        "route add 10.9.0.0/16 dev eth0",
    )
    _refused(inside, "route to 10.9.0.0/16 .* an interface that is not connected")


@pytest.mark.parametrize(
    "command",
    [
        "rule add blackhole from 10.1.0.2 priority 50",
        "rule add not from 10.1.0.2 table 100 priority 50",
        "rule add from all tos 0x10 table 100 priority 50",
        "rule add ipproto tcp dport 80 table 100 priority 50",
        "rule add from all table main suppress_prefixlength 0 priority 50",
        "rule add uidrange 0-5 table 100 priority 50",
    ],
)
def test_rules_that_are_refused(wired: Place, command: str) -> None:
    wired.ip(command)
    assert "plain rules" in _refused(wired, "routing rule 50 cannot be had").hint


def test_what_is_no_namespace(tmp_path: os.PathLike[str]) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(HostError, match="cannot be looked into: setns"):
        survey.survey(fd)
    os.close(fd)


def test_a_namespace_whose_last_process_has_gone(inside: Place) -> None:
    """An open file keeps it."""
    fd = os.open(inside.path, os.O_RDONLY)
    unmount(inside.path)
    assert survey.survey(fd) == survey.Survey()
    os.close(fd)


def test_the_message(wired: Place) -> None:
    wired.script("address add 10.1.0.2/24 dev eth0", "route add default via 10.1.0.1", "rule add from 10.1.0.2 table 5")
    message = _survey(wired).message(3)
    (interface,) = message.interfaces
    assert (interface.mac, interface.name, interface.mtu, interface.queues) == ("02:00:00:00:00:01", "eth0", 1450, 3)
    assert interface.addresses[0] == guest_pb2.Address(address="10.1.0.2/24")
    assert message.routes[0] == guest_pb2.Route(gateway="10.1.0.1", interface="eth0", family=4, type=1)
    (rule,) = message.rules
    assert (rule.source, rule.table) == ("10.1.0.2/32", 5)


_ROUTES = st.builds(
    Route,
    family=st.sampled_from((4, 6)),
    destination=st.sampled_from(("", "10.0.0.0/8", "fd00::/64")),
    gateway=st.sampled_from(("", "10.0.0.1", "fd00::1")),
    scope=st.sampled_from((0, 200, 253)),
)


@given(st.lists(_ROUTES))
def test_order_of_routes(found: list[Route]) -> None:
    """Nothing is lost; none without a gateway comes after one with; a narrower scope comes first."""
    ordered = routes.ordered(found)
    assert sorted(map(repr, ordered)) == sorted(map(repr, found))
    gateways = [bool(route.gateway) for route in ordered]
    assert gateways == sorted(gateways)
    scopes = [route.scope for route in ordered if route.gateway]
    assert scopes == sorted(scopes, reverse=True)


@given(st.lists(st.ip_addresses().map(str), unique=True))
def test_order_of_addresses(found: list[str]) -> None:
    ordered = [each.address for each in links.in_order_of_setting([Address(f"{each}/8") for each in found])]
    assert sorted(ordered) == sorted(f"{each}/8" for each in found)
    four = [each for each in ordered if ipaddress.ip_interface(each).version == 4]
    assert ordered[: len(four)] == four == [f"{each}/8" for each in found if "." in each and ":" not in each]
