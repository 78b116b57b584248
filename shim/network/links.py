"""The interfaces of a network namespace with their addresses and permanent neighbours, read from rtnetlink's messages.

Each that is Ethernet becomes an interface of the machine: its frames go back and forth as they are. What is none
cannot, and is refused if it is up. Passed over are the loopback interface, of which the guest has its own, the ports of
a bridge or bond, whose frames the bridge or bond has, and the tunnels that the kernel puts into every namespace. Pure.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from api import guest_pb2
from netlink import rtnl
from netlink.attribute import attributes, number, text
from shim.errors import SpecError
from shim.network.tap import PREFIX

LOOPBACK: Final = 1

ADDRESS_REQUEST: Final = bytes(rtnl.IFADDRMSG.size)
NEIGHBOUR_REQUEST: Final = bytes(rtnl.NDMSG.size)

# linux/if_arp.h
_ETHERNET: Final = 1
# linux/if_link.h
_IPVLAN_MODE, _IPVLAN_L2 = 1, 0
# linux/ipv6.h, DEVCONF_DISABLE_IPV6, a place in an array of 32-bit numbers.
_DISABLE_IPV6: Final = 26
_AF_INET6: Final = 10
_NO_MAC: Final = b"\0" * 6

# Made with a module of the kernel, in every namespace; down as long as nobody uses them.
_FALLBACKS: Final = frozenset(
    ("tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0")
)
# Whose ports have no life of their own. Not "vrf": its ports have addresses.
_MASTERS: Final = frozenset(("bridge", "bond", "team", "openvswitch"))
# What lies upon another interface gets its frames after they were redirected, that is never.
_UPPER: Final = frozenset(("vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec"))


@dataclass(frozen=True, slots=True)
class Address:
    """An address of an interface."""

    address: str  # "address/prefix"; the prefix is the peer's where there is one
    peer: str = ""
    broadcast: str = ""
    scope: int = 0  # RT_SCOPE_*

    def message(self) -> guest_pb2.Address:
        """For the guest."""
        return guest_pb2.Address(address=self.address, peer=self.peer, broadcast=self.broadcast, scope=self.scope)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour that somebody has set for good."""

    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class Interface:
    """An Ethernet interface of the namespace, which the machine gets one like."""

    index: int
    name: str
    mac: str
    mtu: int
    kind: str = ""  # "veth", "macvlan"; empty for hardware
    up: bool = True
    ipv6: bool = True
    # IPv6 is on, and there is no link-local address: the guest's kernel makes one.
    link_local: bool = False
    promiscuous: bool = False
    all_multicast: bool = False
    tx_queue_length: int = 0
    # In the order in which they are to be set to stand in the same order as here.
    addresses: tuple[Address, ...] = field(default=())
    neighbours: tuple[Neighbour, ...] = field(default=())

    def message(self, queues: int) -> guest_pb2.Interface:
        """For the guest, where it has `queues` pairs of queues."""
        return guest_pb2.Interface(
            mac=self.mac,
            name=self.name,
            mtu=self.mtu,
            addresses=[address.message() for address in self.addresses],
            neighbours=[guest_pb2.Neighbour(address=each.address, mac=each.mac) for each in self.neighbours],
            up=self.up,
            ipv6=self.ipv6,
            link_local=self.link_local,
            promiscuous=self.promiscuous,
            all_multicast=self.all_multicast,
            tx_queue_length=self.tx_queue_length,
            queues=queues,
        )


class Link:
    """One message about a link, taken apart."""

    def __init__(self, message: bytes) -> None:
        _family, self.hardware, self.index, self.flags, _change = rtnl.IFINFOMSG.unpack_from(message)
        self.parts = attributes(message, rtnl.IFINFOMSG.size)
        self.name = text(self.parts[rtnl.IFLA_IFNAME])
        self.mac = self.parts.get(rtnl.IFLA_ADDRESS, b"")
        info = attributes(self.parts.get(rtnl.IFLA_LINKINFO, b""))
        self.kind = text(info.get(rtnl.IFLA_INFO_KIND, b""))
        self.data = attributes(info.get(rtnl.IFLA_INFO_DATA, b""))
        self.master = number(self.parts.get(rtnl.IFLA_MASTER))

    @property
    def up(self) -> bool:
        """Whether somebody has set it up."""
        return bool(self.flags & rtnl.IFF_UP)

    @property
    def below(self) -> int:
        """The index of the interface of the same namespace that it lies upon; 0 where there is none."""
        if self.kind not in _UPPER or rtnl.IFLA_LINK_NETNSID in self.parts:
            return 0
        return number(self.parts.get(rtnl.IFLA_LINK))

    def inet6(self) -> tuple[bool, bool]:
        """Whether it has IPv6, and whether the kernel gives it a link-local address."""
        found = attributes(attributes(self.parts.get(rtnl.IFLA_AF_SPEC, b"")).get(_AF_INET6, b""))
        settings = found.get(rtnl.IFLA_INET6_CONF, b"")
        disabled = number(settings[4 * _DISABLE_IPV6 :][:4])
        on = bool(settings) and not disabled
        return on, on and number(found.get(rtnl.IFLA_INET6_ADDR_GEN_MODE)) != rtnl.IN6_ADDR_GEN_MODE_NONE


def interfaces(
    messages: Iterable[bytes], address_messages: Iterable[bytes], neighbour_messages: Iterable[bytes]
) -> list[Interface]:
    """The interfaces that the machine gets, by index. Raises SpecError for what cannot be connected."""
    found = sorted((Link(message) for message in messages), key=lambda link: link.index)
    by_index = {link.index: link for link in found}
    wanted = [link for link in found if is_wanted(link, by_index)]
    for link in wanted:
        _check(link, by_index)
    _check_macs(wanted)
    addresses = list(_addresses(address_messages, {link.index: link.name for link in wanted}))
    neighbours = list(_neighbours(neighbour_messages))
    return [
        _interface(
            link,
            [address for index, address in addresses if index == link.index],
            [neighbour for index, neighbour in neighbours if index == link.index],
        )
        for link in wanted
    ]


def _interface(link: Link, addresses: Sequence[Address], neighbours: Sequence[Neighbour]) -> Interface:
    inet6, link_local = link.inet6()
    has_link_local = any(
        ipaddress.ip_interface(each.address).is_link_local and ":" in each.address for each in addresses
    )
    return Interface(
        index=link.index,
        name=link.name,
        mac=link.mac.hex(":"),
        mtu=number(link.parts.get(rtnl.IFLA_MTU)),
        kind=link.kind,
        up=link.up,
        ipv6=inet6,
        link_local=link_local and not has_link_local,
        promiscuous=bool(link.flags & rtnl.IFF_PROMISC),
        all_multicast=bool(link.flags & rtnl.IFF_ALLMULTI),
        tx_queue_length=number(link.parts.get(rtnl.IFLA_TXQLEN)),
        addresses=tuple(in_order_of_setting(addresses)),
        neighbours=tuple(neighbours),
    )


def is_wanted(link: Link, by_index: dict[int, Link]) -> bool:
    """Whether the machine gets an interface for it, if it can. `by_index` are all of the namespace."""
    if link.index == LOOPBACK or (link.name in _FALLBACKS and not link.up):
        return False
    master = by_index.get(link.master)
    if master is not None and master.kind in _MASTERS:
        return False
    return link.up or link.hardware == _ETHERNET or link.kind == "tun"


def _check(link: Link, by_index: dict[int, Link]) -> None:
    """Raise SpecError for an interface that no interface of a machine can stand for."""
    if link.kind == "tun" and link.name.startswith(PREFIX):
        raise SpecError(
            f"interface {link.name}: the network namespace leads to another virtual machine already",
            hint="give each container a network namespace of its own",
        )
    if link.kind == "tun":
        raise _refusal(
            link, "what it sends goes to another program", "give it to nobody, or make it inside the container"
        )
    if link.kind == "netkit":
        raise _refusal(link, "netkit has no frames of its own", "have the network plugin use veth")
    if link.hardware != _ETHERNET or len(link.mac) != len(_NO_MAC) or link.mac == _NO_MAC:
        raise _refusal(link, "it is not Ethernet", "use such interfaces on the host, and a bridge to the container")
    if link.kind == "ipvlan" and number(link.data.get(_IPVLAN_MODE)) != _IPVLAN_L2:
        raise _refusal(
            link, "ipvlan in mode l3 or l3s has no frames of its own", "use its mode l2, macvlan, or a bridge"
        )
    if link.kind == "vrf" or (link.master in by_index and by_index[link.master].kind == "vrf"):
        raise _refusal(link, "a VRF cannot be copied", "use rules and routing tables (the plugin sbr)")
    if link.below in by_index:
        below = by_index[link.below].name
        raise _refusal(link, f"it lies upon {below} of the same namespace", "make it inside the container")


def _refusal(link: Link, why: str, hint: str) -> SpecError:
    kind = f" ({link.kind})" if link.kind else ""
    return SpecError(f"interface {link.name}{kind} cannot be connected to a virtual machine: {why}", hint=hint)


def _check_macs(links: Sequence[Link]) -> None:
    """The guest knows its interfaces by their MAC addresses."""
    names: dict[bytes, str] = {}
    for link in links:
        if link.mac in names:
            raise _refusal(
                link, f"it has the MAC address {link.mac.hex(':')}, as {names[link.mac]}", "give each interface its own"
            )
        names[link.mac] = link.name


def _addresses(messages: Iterable[bytes], names: Mapping[int, str]) -> Iterator[tuple[int, Address]]:
    """With the index of the interface; those of the interfaces in `names`. Raises SpecError for one that is taken."""
    for message in messages:
        _family, prefix, _flags, scope, index = rtnl.IFADDRMSG.unpack_from(message)
        if index not in names:
            continue
        parts = attributes(message, rtnl.IFADDRMSG.size)
        other = parts.get(rtnl.IFA_ADDRESS, b"")
        local = parts.get(rtnl.IFA_LOCAL, other)
        # IPv4 has both always; the prefix is that of the peer where they differ (ip-address(8)).
        is_peer = bool(other) and other != local
        if number(parts.get(rtnl.IFA_FLAGS)) & rtnl.IFA_F_DADFAILED:
            # The kernel does not use it, which CNI's plugins do not tell. The guest would: it looks for no other.
            raise SpecError(
                f"address {address(local)} of interface {names[index]} is in use: another on its network has it",
                hint="give each container addresses of its own",
            )
        yield (
            index,
            Address(
                f"{address(local)}/{prefix}",
                peer=address(other) if is_peer else "",
                broadcast=address(parts[rtnl.IFA_BROADCAST]) if rtnl.IFA_BROADCAST in parts else "",
                scope=scope,
            ),
        )


def in_order_of_setting(addresses: Sequence[Address]) -> list[Address]:
    """IPv4 as they stand: the first of a network is its primary address. IPv6 the other way round.

    The kernel puts a new address of IPv6 before those of the same scope (net/ipv6/addrconf.c, ipv6_link_dev_addr), and
    takes the first of several that suit as the source.
    """
    four = [each for each in addresses if ":" not in each.address]
    six = [each for each in addresses if ":" in each.address]
    return four + six[::-1]


def _neighbours(messages: Iterable[bytes]) -> Iterator[tuple[int, Neighbour]]:
    for message in messages:
        _family, index, state, flags, _type = rtnl.NDMSG.unpack_from(message)
        parts = attributes(message, rtnl.NDMSG.size)
        mac = parts.get(rtnl.NDA_LLADDR, b"")
        if (
            state & rtnl.NUD_PERMANENT
            and not flags & rtnl.NTF_PROXY
            and len(mac) == len(_NO_MAC)
            and rtnl.NDA_DST in parts
        ):
            yield index, Neighbour(address(parts[rtnl.NDA_DST]), mac.hex(":"))


def address(value: bytes) -> str:
    """An address of 4 or 16 bytes, as people write it."""
    return str(ipaddress.ip_address(value))
