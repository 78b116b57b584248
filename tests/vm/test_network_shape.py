"""A machine's network is the one that runc's container sees in the same namespace: all of it, by iproute2's words."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness import cni
from harness.attached import Attached, attached, namespace
from harness.box import Box
from harness.cell import Cell
from harness.shape import Shape, seen

# Half of a pair, whose other half stays in the cell.
_BY_HAND = """
ip link set eth0 down
sysctl -qw net.ipv6.conf.eth0.accept_dad=0
ip link set eth0 address 02:00:00:00:00:07 mtu 1420 txqueuelen 333 up
ip address add 10.77.0.2/24 broadcast 10.77.0.255 dev eth0
ip address add 10.77.0.3/24 dev eth0
ip address add 10.77.1.2 peer 10.77.1.1 dev eth0
ip address add 10.77.2.2/24 scope link dev eth0
ip address add fd77::2/64 nodad dev eth0
ip address add fd77::3/64 nodad dev eth0
ip address add fd77:1::2/128 nodad dev eth0
ip route add default via 10.77.0.1 metric 50
ip route add default via 10.77.0.254 metric 60
ip route add 10.78.0.0/16 via 192.0.2.1 onlink dev eth0
ip route add 10.79.0.0/16 dev eth0 scope link
ip route add 10.80.0.0/16 via 10.77.0.1 src 10.77.0.3 mtu 1300
ip route add 10.81.0.0/16 dev eth0 scope host
ip route add blackhole 10.82.0.0/16
ip route add unreachable 10.83.0.0/16 metric 7
ip route add prohibit 10.84.0.0/16
ip route add default via 10.77.0.1 table 100
ip route add throw 10.85.0.0/16 table 100
ip route add 10.86.0.0/16 dev eth0 table 100000
ip route add default via fd77::1
ip route add fd78::/64 via fe80::1 dev eth0 metric 9
ip route add fd79::/64 dev eth0 mtu 1300
ip route add blackhole fd80::/64
ip route add fd81::/64 via fd77::1 table 101
ip rule add from 10.77.0.3 table 100 priority 1000
ip rule add to 10.90.0.0/16 fwmark 0x10/0xff table 100000 priority 1001
ip rule add iif eth0 table 100 priority 1002
ip -6 rule add from fd77::3 table 101 priority 1003
ip neighbour add 10.77.0.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0
ip neighbour add fd77::9 lladdr 02:00:00:00:00:0a nud permanent dev eth0
"""


@pytest.mark.on("2")
def test_networks_of_several_plugins(vm: Box, network_image: str) -> None:
    """eth0 by bridge, eth1 by ptp, eth2 by macvlan, eth3 by bridge with addresses that were asked for."""
    cell = vm.containerd.cell
    fixed = cni.bridge()
    static = cni.static(fixed, f"{fixed.ip4[:-1]}77/24", f"{fixed.ip6[:-1]}77/64")
    nets = [cni.bridge(mtu=1400), cni.ptp(), cni.macvlan("under0"), static]
    with _pair(cell, "under0", "under1"), cni.configured(vm, *nets), attached(vm, *nets) as joined:
        shape = _assert_same(vm, joined, network_image)
    assert [json.loads(line)["ifname"] for line in shape["links"]] == ["lo", "eth0", "eth1", "eth2", "eth3"]


@pytest.mark.on("2")
def test_what_people_set_by_hand(vm: Box, network_image: str) -> None:
    """Peers, scopes, metrics; routes on the link, to nowhere and in other tables; rules, neighbours."""
    with namespace(vm.containerd.cell) as joined, _pair(vm.containerd.cell, "by-hand", "eth0", joined.name):
        for line in _BY_HAND.strip().splitlines():
            joined.run(*line.split())
        shape = _assert_same(vm, joined, network_image)
    # What was set is what iproute2 shows: nothing that differs is left out of both.
    assert (len(shape["IPv4 routes"]), len(shape["IPv4 rules"]), len(shape["neighbours"])) == (24, 6, 2)


def _assert_same(vm: Box, joined: Attached, image: str) -> Shape:
    """A container of runc looks first, in the same namespace; what it has seen."""
    expected = seen(Box(vm.containerd, "runc"), image, *joined.options)
    found = seen(vm, image, *joined.options)
    for kind, lines in expected.items():
        assert found[kind] == lines, kind
    return expected


@contextmanager
def _pair(cell: Cell, one: str, other: str, netns: str = "") -> Iterator[None]:
    """Two ends of a link, both up, of which the other is in that namespace if one is named."""
    cni.run(cell, "ip", "link", "add", one, "type", "veth", "peer", other, *(["netns", netns] if netns else []))
    cni.run(cell, "ip", "link", "set", one, "up")
    cni.run(cell, "ip", *(["-n", netns] if netns else []), "link", "set", other, "up")
    try:
        yield
    finally:
        cni.run(cell, "ip", "link", "del", one)
