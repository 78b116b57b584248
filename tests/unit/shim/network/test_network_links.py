"""Interfaces of kinds that not every kernel has, by messages such as the kernel sends."""

import struct

import pytest

from netlink import rtnl
from netlink.attribute import attribute, string, u32
from shim.errors import SpecError
from shim.network import links

_ETHERNET, _NONE, _TUNNEL = 1, 0xFFFE, 768


def _link(
    name: str,
    kind: str = "",
    *,
    index: int = 2,
    up: bool = True,
    hardware: int = _ETHERNET,
    mac: str = "02:00:00:00:00:01",
    data: bytes = b"",
    parts: bytes = b"",
) -> bytes:
    info = attribute(rtnl.IFLA_LINKINFO, string(rtnl.IFLA_INFO_KIND, kind) + attribute(rtnl.IFLA_INFO_DATA, data))
    return (
        rtnl.IFINFOMSG.pack(0, hardware, index, rtnl.IFF_UP if up else 0, 0)
        + string(rtnl.IFLA_IFNAME, name)
        + attribute(rtnl.IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        + u32(rtnl.IFLA_MTU, 1500)
        + info
        + parts
    )


def _interfaces(*messages: bytes) -> list[str]:
    return [interface.name for interface in links.interfaces(messages, [], [])]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (_link("eth0", "netkit"), r"eth0 \(netkit\) .* netkit has no frames"),
        (_link("eth0", "netkit", hardware=_NONE, mac=""), r"eth0 \(netkit\) .* netkit has no frames"),
        (_link("eth0", "ipvlan", data=attribute(1, struct.pack("H", 1))), r"eth0 \(ipvlan\) .* mode l3 or l3s"),
        (_link("eth0", "ipvlan", data=attribute(1, struct.pack("H", 2))), r"eth0 \(ipvlan\) .* mode l3 or l3s"),
        (_link("wg0", "wireguard", hardware=_NONE, mac=""), r"wg0 \(wireguard\) .* it is not Ethernet"),
        (_link("tunl0", "ipip", hardware=_TUNNEL, mac="00:00:00:00"), r"tunl0 \(ipip\) .* it is not Ethernet"),
        (_link("ib0", hardware=32, mac="00" * 20), r"ib0 cannot .* it is not Ethernet"),
        (_link("eth0", mac="00:00:00:00:00:00"), r"eth0 cannot .* it is not Ethernet"),
        (_link("red", "vrf"), r"red \(vrf\) .* a VRF cannot be copied"),
    ],
)
def test_kinds_that_are_refused(message: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason) as refused:
        _interfaces(message)
    assert refused.value.hint


def test_kinds_that_can_be_connected() -> None:
    assert _interfaces(
        _link("eth0", "veth"),
        _link("eth1", "ipvlan", index=3, mac="02:00:00:00:00:02", data=attribute(1, struct.pack("H", 0))),
        _link("eth2", index=4, mac="02:00:00:00:00:03"),
        # What it lies upon is in another namespace.
        _link("eth3", "vlan", index=5, mac="02:00:00:00:00:04", parts=u32(5, 2) + u32(37, 0)),
        _link("eth4", "dummy", index=6, mac="02:00:00:00:00:05", up=False),
    ) == ["eth0", "eth1", "eth2", "eth3", "eth4"]


def test_a_port_of_a_vrf() -> None:
    port = _link("eth0", "veth", parts=u32(rtnl.IFLA_MASTER, 3))
    with pytest.raises(SpecError, match=r"eth0 \(veth\) .* a VRF cannot be copied"):
        _interfaces(port, _link("red", "vrf", index=3, mac="02:00:00:00:00:02"))


@pytest.mark.parametrize("kind", ["bridge", "bond", "team", "openvswitch"])
def test_ports_are_passed_over(kind: str) -> None:
    port = _link("eth0", "veth", parts=u32(rtnl.IFLA_MASTER, 3))
    assert _interfaces(port, _link("master", kind, index=3, mac="02:00:00:00:00:02")) == ["master"]


def test_what_every_namespace_has_is_passed_over_while_it_is_down() -> None:
    """Loading a tunnel's module puts one into each."""
    fallbacks = (
        *(_link("tunl0", "ipip", hardware=_TUNNEL, mac="00:00:00:00", up=False), _link("lo", index=1)),
        _link("gretap0", "gretap", index=3, mac="00:00:00:00:00:00", up=False),
    )
    assert _interfaces(*fallbacks) == []
    # Down, and nothing that could be connected: nobody misses it.
    assert _interfaces(_link("wg0", "wireguard", hardware=_NONE, mac="", up=False)) == []
