"""Each part of guest.proto's NetworkConfig as a request to the kernel: rtnetlink(7), linux/if_link.h and its kin. Pure.

Each raises RequestError, with the value, for what is no address or does not go together.
"""

import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from api.guest_pb2 import Address, Neighbour, Route, Rule
from netlink import rtnl
from netlink.attribute import attribute, nested, string, u32
from netlink.message import NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, Request
from vminitd.errors import RequestError

_BY_MAC, _NONE = bytes([rtnl.IN6_ADDR_GEN_MODE_EUI64]), bytes([rtnl.IN6_ADDR_GEN_MODE_NONE])
_BITS: Final[dict[int, int]] = {socket.AF_INET: 32, socket.AF_INET6: 128}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

GET_LINKS = Request(rtnl.RTM_GETLINK, NLM_F_DUMP, rtnl.ALL_LINKS, "listing the interfaces")


class Prefix(NamedTuple):
    """Of a network, or an address with the length of its network's."""

    family: int
    address: bytes
    length: int

    def network(self) -> "Prefix":
        """Without the bits of the host."""
        size = len(self.address)
        host_bits = size * 8 - self.length
        bits = int.from_bytes(self.address) >> host_bits << host_bits
        return Prefix(self.family, bits.to_bytes(size), self.length)


def address_bytes(written: str, what: str) -> tuple[int, bytes]:
    """(AF_*, the bytes) of an IPv4 or IPv6 address. `what` it belongs to is for the error."""
    family = socket.AF_INET6 if ":" in written else socket.AF_INET
    try:
        return family, socket.inet_pton(family, written)
    except (OSError, ValueError):
        raise RequestError(f"{what}: {written!r} is not an IP address") from None


def prefix(written: str, what: str) -> Prefix:
    """Of "address/length"; an address alone has all its bits."""
    address, slash, length = written.partition("/")
    family, packed = address_bytes(address, what)
    bits = _BITS[family]
    if slash and not (length.isascii() and length.isdigit() and int(length) <= bits):
        raise RequestError(f"{what}: {written!r} has no prefix length of 0 to {bits}")
    return Prefix(family, packed, int(length) if slash else bits)


def mac_bytes(written: str, what: str) -> bytes:
    """Of six hexadecimal numbers of two digits, with colons between them."""
    try:
        packed = bytes.fromhex(written.replace(":", ""))
    except ValueError:
        packed = b""
    if len(packed) != 6 or len(written) != 17 or written[2::3] != ":::::":
        raise RequestError(f"{what}: {written!r} is not a MAC address")
    return packed


def set_link(index: int, what: str, *, name: str, mtu: int, tx_queue_length: int, link_local: bool | None) -> Request:
    """Of an interface that is down: its name, where not empty; its MTU and queue, where not 0.

    `link_local`: whether the kernel makes itself an IPv6 address for the link when it comes up. None: there is no IPv6.
    """
    body = rtnl.link(index)
    if mtu:
        body += u32(rtnl.IFLA_MTU, mtu)
    if name:
        body += string(rtnl.IFLA_IFNAME, name)
    if tx_queue_length:
        body += u32(rtnl.IFLA_TXQLEN, tx_queue_length)
    if link_local is not None:
        mode = attribute(rtnl.IFLA_INET6_ADDR_GEN_MODE, _BY_MAC if link_local else _NONE)
        body += nested(rtnl.IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Request(rtnl.RTM_NEWLINK, 0, body, what)


def set_flags(index: int, what: str, *, up: bool, promiscuous: bool, all_multicast: bool) -> Request:
    """Switches on what is wanted, and nothing off."""
    flags = up * rtnl.IFF_UP | promiscuous * rtnl.IFF_PROMISC | all_multicast * rtnl.IFF_ALLMULTI
    return Request(rtnl.RTM_NEWLINK, 0, rtnl.link(index, flags=flags, change=flags), what)


def add_address(index: int, interface: str, message: Address, connected: Collection[Prefix]) -> Request:
    """An address of the interface, in use at once: no duplicate is looked for.

    The kernel makes the route to its network itself, unless that is among `connected`: see `own_routes`.
    """
    what = f"address {message.address} of interface {interface}"
    own = prefix(message.address, what)
    far = own.address
    if message.peer:
        family, far = address_bytes(message.peer.partition("/")[0], what)
        if family != own.family:
            raise RequestError(f"{what}: its peer {message.peer} is of another family")
    flags = rtnl.IFA_F_NODAD if own.family == socket.AF_INET6 else 0
    if Prefix(own.family, far, own.length).network() in connected:
        flags |= rtnl.IFA_F_NOPREFIXROUTE
    body = rtnl.IFADDRMSG.pack(own.family, own.length, flags & 0xFF, message.scope, index)
    body += attribute(rtnl.IFA_LOCAL, own.address) + attribute(rtnl.IFA_ADDRESS, far) + u32(rtnl.IFA_FLAGS, flags)
    if message.broadcast:
        family, broadcast = address_bytes(message.broadcast, what)
        if family != socket.AF_INET or own.family != family:
            raise RequestError(f"{what}: {message.broadcast} cannot be its broadcast address")
        body += attribute(rtnl.IFA_BROADCAST, broadcast)
    return Request(rtnl.RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)


def add_neighbour(index: int, interface: str, message: Neighbour) -> Request:
    """One that the kernel need not ask for, and does not forget."""
    what = f"neighbour {message.address} of interface {interface}"
    family, packed = address_bytes(message.address, what)
    body = rtnl.NDMSG.pack(family, index, rtnl.NUD_PERMANENT, 0, 0)
    body += attribute(rtnl.NDA_DST, packed) + attribute(rtnl.NDA_LLADDR, mac_bytes(message.mac, what))
    return Request(rtnl.RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def add_route(message: Route, index: int) -> Request:
    """`index` is that of the route's interface, 0 if it has none.

    Appended: two routes to one destination with one metric are there afterwards as they were where they come from
    (IPv6: as one with two ways). One that is there just so is an error.
    """
    what = _name(message)
    family = _family(message.family, what)
    to = _within(family, message.destination, what)
    table = message.table or rtnl.RT_TABLE_MAIN
    body = rtnl.RTMSG.pack(
        family,
        to.length,
        0,
        0,
        table if table < 256 else rtnl.RT_TABLE_COMPAT,
        rtnl.RTPROT_BOOT,  # what whoever sets a route by ip(8) or a CNI plugin calls it
        message.scope,
        message.type or rtnl.RTN_UNICAST,
        rtnl.RTNH_F_ONLINK if message.on_link else 0,
    )
    if to.length:
        body += attribute(rtnl.RTA_DST, to.address)
    body += u32(rtnl.RTA_TABLE, table)
    if message.gateway:
        gateway_family, gateway = address_bytes(message.gateway, what)
        if gateway_family == family:
            body += attribute(rtnl.RTA_GATEWAY, gateway)
        else:  # IPv4 by way of IPv6
            body += attribute(rtnl.RTA_VIA, struct.pack("=H", gateway_family) + gateway)
    if index:
        body += u32(rtnl.RTA_OIF, index)
    if message.source:
        body += attribute(rtnl.RTA_PREFSRC, _within(family, message.source, what).address)
    if message.metric:
        body += u32(rtnl.RTA_PRIORITY, message.metric)
    if message.mtu:
        body += nested(rtnl.RTA_METRICS, u32(rtnl.RTAX_MTU, message.mtu))
    return Request(rtnl.RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, body, what)


def add_rule(message: Rule) -> Request:
    """A rule that looks into a table."""
    what = f"rule {message.priority} of IPv{message.family}, to table {message.table}"
    family = _family(message.family, what)
    source, destination = _within(family, message.source, what), _within(family, message.destination, what)
    table = message.table if message.table < 256 else rtnl.RT_TABLE_COMPAT
    body = rtnl.FIB_RULE_HDR.pack(family, destination.length, source.length, 0, table, rtnl.FR_ACT_TO_TBL, 0)
    body += u32(rtnl.FRA_PRIORITY, message.priority) + u32(rtnl.FRA_TABLE, message.table)
    if source.length:
        body += attribute(rtnl.FRA_SRC, source.address)
    if destination.length:
        body += attribute(rtnl.FRA_DST, destination.address)
    if message.input:
        body += string(rtnl.FRA_IIFNAME, message.input)
    if message.output:
        body += string(rtnl.FRA_OIFNAME, message.output)
    if message.mark or message.mask:
        body += u32(rtnl.FRA_FWMARK, message.mark)
    if message.mask:
        body += u32(rtnl.FRA_FWMASK, message.mask)
    return Request(rtnl.RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, what)


def removal(addition: Request) -> Request:
    """Takes away again what `addition`, a route or rule, has added: RTM_DEL* follows RTM_NEW*."""
    return Request(addition.kind + 1, 0, addition.body, f"removing {addition.what}")


def _name(message: Route) -> str:
    """As `ip route` writes it."""
    words = [f"route to {message.destination or f'all of IPv{message.family}'}"]
    if message.gateway:
        words.append(f"via {message.gateway}")
    if message.interface:
        words.append(f"dev {message.interface}")
    if message.table not in (0, rtnl.RT_TABLE_MAIN):
        words.append(f"table {message.table}")
    return " ".join(words)


def _family(version: int, what: str) -> int:
    if version not in _FAMILIES:
        raise RequestError(f"{what}: there is no IPv{version}")
    return _FAMILIES[version]


def _within(family: int, written: str, what: str) -> Prefix:
    """`written` as a prefix of that family; all of it if it is empty."""
    if not written:
        return Prefix(family, b"", 0)
    parsed = prefix(written, what)
    if parsed.family != family:
        raise RequestError(f"{what}: {written} is not of its family")
    return parsed
