"""Each part of guest.proto's NetworkConfig as a request to the kernel: rtnetlink(7), linux/if_link.h and its kin. Pure.

Each raises RequestError, with the value, for what is no address or does not go together.
"""

import socket
import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from api.guest_pb2 import Address, Neighbour, Route, Rule
from vminitd.errors import RequestError
from vminitd.network.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Request,
    attribute,
    nested,
    number,
    text,
)

RTM_NEWLINK = 16
_RTM_GETLINK = 18
_RTM_NEWADDR = 20
_RTM_NEWROUTE = 24
_RTM_NEWNEIGH = 28
_RTM_NEWRULE = 32

# family, type, index, flags, which of the flags: struct ifinfomsg
IFINFO = struct.Struct("=BxHiII")
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_TXQLEN = 13
_IFLA_AF_SPEC = 26
_IFLA_EXT_MASK = 29
_RTEXT_FILTER_SKIP_STATS = 8
_IFLA_INET6_ADDR_GEN_MODE = 8
_BY_MAC, _NONE = b"\0", b"\1"  # IN6_ADDR_GEN_MODE_EUI64, IN6_ADDR_GEN_MODE_NONE
_IFF_UP = 0x1
_IFF_PROMISC = 0x100
_IFF_ALLMULTI = 0x200

# family, prefix length, flags, scope, index: struct ifaddrmsg
_IFADDR = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_IFA_F_NOPREFIXROUTE = 0x200

# family, prefix lengths of destination and source, TOS, table, protocol, scope, type, flags: struct rtmsg
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_METRICS, _RTA_TABLE = 1, 4, 5, 6, 7, 8, 15
_RTA_VIA = 18
_RTAX_MTU = 2
_RTNH_F_ONLINK = 4
_RTPROT_BOOT = 3  # what whoever sets a route by ip(8) or a CNI plugin calls it
_RTN_UNICAST = 1
_RT_TABLE_COMPAT = 252
_RT_TABLE_MAIN = 254

# family, prefix lengths of destination and source, TOS, table, action, flags: struct fib_rule_hdr
_RULE = struct.Struct("=BBBBBxxBI")
_FR_ACT_TO_TBL = 1
_FRA_DST, _FRA_SRC, _FRA_IIFNAME, _FRA_PRIORITY, _FRA_FWMARK = 1, 2, 3, 6, 10
_FRA_TABLE, _FRA_FWMASK, _FRA_OIFNAME = 15, 16, 17

# family, index, state, flags, type: struct ndmsg
_NDMSG = struct.Struct("=BxxxiHBB")
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

_BITS: Final[dict[int, int]] = {socket.AF_INET: 32, socket.AF_INET6: 128}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

GET_LINKS = Request(
    _RTM_GETLINK,
    NLM_F_DUMP,
    IFINFO.pack(0, 0, 0, 0, 0) + number(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS),
    "listing the interfaces",
)


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
    body = IFINFO.pack(0, 0, index, 0, 0)
    if mtu:
        body += number(_IFLA_MTU, mtu)
    if name:
        body += text(IFLA_IFNAME, name)
    if tx_queue_length:
        body += number(_IFLA_TXQLEN, tx_queue_length)
    if link_local is not None:
        mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, _BY_MAC if link_local else _NONE)
        body += nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Request(RTM_NEWLINK, 0, body, what)


def set_flags(index: int, what: str, *, up: bool, promiscuous: bool, all_multicast: bool) -> Request:
    """Switches on what is wanted, and nothing off."""
    flags = up * _IFF_UP | promiscuous * _IFF_PROMISC | all_multicast * _IFF_ALLMULTI
    return Request(RTM_NEWLINK, 0, IFINFO.pack(0, 0, index, flags, flags), what)


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
    flags = _IFA_F_NODAD if own.family == socket.AF_INET6 else 0
    if Prefix(own.family, far, own.length).network() in connected:
        flags |= _IFA_F_NOPREFIXROUTE
    body = _IFADDR.pack(own.family, own.length, flags & 0xFF, message.scope, index)
    body += attribute(_IFA_LOCAL, own.address) + attribute(_IFA_ADDRESS, far) + number(_IFA_FLAGS, flags)
    if message.broadcast:
        family, broadcast = address_bytes(message.broadcast, what)
        if family != socket.AF_INET or own.family != family:
            raise RequestError(f"{what}: {message.broadcast} cannot be its broadcast address")
        body += attribute(_IFA_BROADCAST, broadcast)
    return Request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, what)


def add_neighbour(index: int, interface: str, message: Neighbour) -> Request:
    """One that the kernel need not ask for, and does not forget."""
    what = f"neighbour {message.address} of interface {interface}"
    family, packed = address_bytes(message.address, what)
    body = _NDMSG.pack(family, index, _NUD_PERMANENT, 0, 0)
    body += attribute(_NDA_DST, packed) + attribute(_NDA_LLADDR, mac_bytes(message.mac, what))
    return Request(_RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, what)


def add_route(message: Route, index: int) -> Request:
    """`index` is that of the route's interface, 0 if it has none.

    Appended: two routes to one destination with one metric are there afterwards as they were where they come from
    (IPv6: as one with two ways). One that is there just so is an error.
    """
    what = _name(message)
    family = _family(message.family, what)
    to = _within(family, message.destination, what)
    table = message.table or _RT_TABLE_MAIN
    body = _RTMSG.pack(
        family,
        to.length,
        0,
        0,
        table if table < 256 else _RT_TABLE_COMPAT,
        _RTPROT_BOOT,
        message.scope,
        message.type or _RTN_UNICAST,
        _RTNH_F_ONLINK if message.on_link else 0,
    )
    if to.length:
        body += attribute(_RTA_DST, to.address)
    body += number(_RTA_TABLE, table)
    if message.gateway:
        gateway_family, gateway = address_bytes(message.gateway, what)
        if gateway_family == family:
            body += attribute(_RTA_GATEWAY, gateway)
        else:  # IPv4 by way of IPv6
            body += attribute(_RTA_VIA, struct.pack("=H", gateway_family) + gateway)
    if index:
        body += number(_RTA_OIF, index)
    if message.source:
        body += attribute(_RTA_PREFSRC, _within(family, message.source, what).address)
    if message.metric:
        body += number(_RTA_PRIORITY, message.metric)
    if message.mtu:
        body += nested(_RTA_METRICS, number(_RTAX_MTU, message.mtu))
    return Request(_RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND, body, what)


def add_rule(message: Rule) -> Request:
    """A rule that looks into a table."""
    what = f"rule {message.priority} of IPv{message.family}, to table {message.table}"
    family = _family(message.family, what)
    source, destination = _within(family, message.source, what), _within(family, message.destination, what)
    table = message.table if message.table < 256 else _RT_TABLE_COMPAT
    body = _RULE.pack(family, destination.length, source.length, 0, table, _FR_ACT_TO_TBL, 0)
    body += number(_FRA_PRIORITY, message.priority) + number(_FRA_TABLE, message.table)
    if source.length:
        body += attribute(_FRA_SRC, source.address)
    if destination.length:
        body += attribute(_FRA_DST, destination.address)
    if message.input:
        body += text(_FRA_IIFNAME, message.input)
    if message.output:
        body += text(_FRA_OIFNAME, message.output)
    if message.mark or message.mask:
        body += number(_FRA_FWMARK, message.mark)
    if message.mask:
        body += number(_FRA_FWMASK, message.mask)
    return Request(_RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, body, what)


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
    if message.table not in (0, _RT_TABLE_MAIN):
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
