"""The routes and rules of a network namespace, read from rtnetlink's messages. Pure.

Without those that the kernel made itself, for addresses and in the table `local`: the guest's kernel makes its own. One
that the CNI plugin ptp has put into the place of such a route tells the guest to leave that out.
What our message has no word for is refused by name; a route that is left out quietly is a fault that nobody finds.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from api import guest_pb2
from netlink import rtnl
from netlink.attribute import attributes, number, text
from shim.errors import SpecError
from shim.network.links import address

REQUEST: Final = bytes(rtnl.RTMSG.size)
RULE_REQUEST: Final = bytes(rtnl.FIB_RULE_HDR.size)

# The types of routes that lead nowhere.
_NOWHERE: Final = frozenset((rtnl.RTN_BLACKHOLE, rtnl.RTN_UNREACHABLE, rtnl.RTN_PROHIBIT, rtnl.RTN_THROW))
# What a rule selects by: without any, it is for everything.
_SELECTORS: Final = frozenset((rtnl.FRA_SRC, rtnl.FRA_DST, rtnl.FRA_IIFNAME, rtnl.FRA_OIFNAME, rtnl.FRA_FWMARK))
_SUPPRESSORS: Final = (rtnl.FRA_SUPPRESS_IFGROUP, rtnl.FRA_SUPPRESS_PREFIXLEN)
_RULE_WORDS: Final = _SELECTORS.union(
    (rtnl.FRA_PRIORITY, rtnl.FRA_TABLE, rtnl.FRA_FWMASK, rtnl.FRA_PAD, rtnl.FRA_PROTOCOL), _SUPPRESSORS
)
_NO_LIMIT: Final = 0xFFFFFFFF
# The kernel's own: by priority, to which table.
_RULES_OF_KERNEL: Final = {0: rtnl.RT_TABLE_LOCAL, 32766: rtnl.RT_TABLE_MAIN, 32767: rtnl.RT_TABLE_DEFAULT}
_AF_INET, _AF_INET6 = 2, 10
_FAMILIES: Final = {_AF_INET: 4, _AF_INET6: 6}


@dataclass(frozen=True, slots=True)
class Route:
    """A route; the fields are those of guest.proto."""

    family: int  # 4 or 6
    destination: str = ""
    gateway: str = ""
    interface: str = ""
    scope: int = 0
    metric: int = 0
    on_link: bool = False
    source: str = ""
    table: int = 0  # 0 is the main one
    type: int = rtnl.RTN_UNICAST
    mtu: int = 0

    def message(self) -> guest_pb2.Route:
        """For the guest."""
        return guest_pb2.Route(
            destination=self.destination,
            gateway=self.gateway,
            interface=self.interface,
            scope=self.scope,
            metric=self.metric,
            on_link=self.on_link,
            source=self.source,
            family=self.family,
            table=self.table,
            type=self.type,
            mtu=self.mtu,
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that looks into a table; the fields are those of guest.proto."""

    family: int
    priority: int
    table: int
    source: str = ""
    destination: str = ""
    input: str = ""
    output: str = ""
    mark: int = 0
    mask: int = 0

    def message(self) -> guest_pb2.Rule:
        """For the guest."""
        return guest_pb2.Rule(
            family=self.family,
            priority=self.priority,
            table=self.table,
            source=self.source,
            destination=self.destination,
            input=self.input,
            output=self.output,
            mark=self.mark,
            mask=self.mask,
        )


def routes(messages: Iterable[bytes], names: Mapping[int, str]) -> Iterator[Route]:
    """The routes of an interface in `names` (by index), and those that lead nowhere. Raises SpecError."""
    for message in messages:
        family, prefix, source_prefix, tos, table, protocol, scope, kind, flags = rtnl.RTMSG.unpack_from(message)
        parts = attributes(message, rtnl.RTMSG.size)
        table = number(parts.get(rtnl.RTA_TABLE)) or table
        if (
            family not in _FAMILIES
            or table == rtnl.RT_TABLE_LOCAL
            or protocol == rtnl.RTPROT_KERNEL
            or flags & rtnl.RTM_F_CLONED
        ):
            continue
        destination = f"{address(parts[rtnl.RTA_DST])}/{prefix}" if rtnl.RTA_DST in parts else ""
        for hop in _hops(family, parts, flags):
            route = Route(
                family=_FAMILIES[family],
                destination=destination,
                gateway=address(hop.parts[rtnl.RTA_GATEWAY]) if rtnl.RTA_GATEWAY in hop.parts else "",
                interface="" if kind in _NOWHERE else names.get(hop.index, ""),
                scope=scope,
                metric=number(parts.get(rtnl.RTA_PRIORITY)),
                on_link=bool(hop.flags & rtnl.RTNH_F_ONLINK),
                source=address(parts[rtnl.RTA_PREFSRC]) if rtnl.RTA_PREFSRC in parts else "",
                table=0 if table == rtnl.RT_TABLE_MAIN else table,
                type=kind,
                mtu=number(attributes(parts.get(rtnl.RTA_METRICS, b"")).get(rtnl.RTAX_MTU)),
            )
            if why := _obstacle(hop, kind, route, tos=tos, source_prefix=source_prefix):
                raise SpecError(
                    f"route to {destination or 'default'} cannot be had in a virtual machine: {why}",
                    hint="have the network plugin set plain routes through one interface",
                )
            yield route


@dataclass(frozen=True, slots=True)
class _Hop:
    """A way that a route has."""

    index: int
    flags: int
    parts: Mapping[int, bytes]
    weight: int = 0  # less one


def _hops(family: int, parts: dict[int, bytes], flags: int) -> Iterator[_Hop]:
    """The ways of a route: one, but for IPv6.

    There several routes to one destination with one metric, each of its own gateway, are one with several ways to the
    kernel, as it tells and as it is told: two networks whose CNI plugins set a default route each make such a one.
    """
    ways = parts.get(rtnl.RTA_MULTIPATH, b"")
    if not ways or family != _AF_INET6:
        yield _Hop(number(parts.get(rtnl.RTA_OIF)), flags, parts)
        return
    offset = 0
    while offset + rtnl.RTNEXTHOP.size <= len(ways):
        length, hop_flags, weight, index = rtnl.RTNEXTHOP.unpack_from(ways, offset)
        yield _Hop(index, hop_flags, attributes(ways[: offset + length], offset + rtnl.RTNEXTHOP.size), weight)
        offset += (max(length, rtnl.RTNEXTHOP.size) + 3) & ~3


def _obstacle(hop: _Hop, kind: int, route: Route, *, tos: int, source_prefix: int) -> str:
    parts = hop.parts
    if rtnl.RTA_MULTIPATH in parts:
        return "it has several next hops"
    if hop.weight:
        return "its next hops have weights"
    if rtnl.RTA_ENCAP in parts:
        return "it encapsulates"
    if rtnl.RTA_VIA in parts:
        return "its gateway is of another address family"
    if tos:
        return f"it is for type of service {tos:#x} alone"
    if source_prefix:
        return "it is for some source addresses alone"
    if kind not in _NOWHERE | {rtnl.RTN_UNICAST}:
        return f"it is of type {kind}"
    if kind == rtnl.RTN_UNICAST and not route.interface:
        return "it leads through an interface that is not connected"
    return ""


def ordered(found: Iterable[Route]) -> list[Route]:
    """In an order in which the kernel takes them: the route to a gateway before those through it.

    A gateway must be reached by a route of a narrower scope (net/ipv4/fib_semantics.c, fib_check_nh).
    """
    return sorted(found, key=lambda route: (bool(route.gateway), -route.scope))


def rules(messages: Iterable[bytes]) -> Iterator[Rule]:
    """Those beyond the kernel's own. Raises SpecError for what our message has no word for."""
    for message in messages:
        family, dst_prefix, src_prefix, tos, table, action, flags = rtnl.FIB_RULE_HDR.unpack_from(message)
        parts = attributes(message, rtnl.FIB_RULE_HDR.size)
        table = number(parts.get(rtnl.FRA_TABLE)) or table
        priority = number(parts.get(rtnl.FRA_PRIORITY))
        if family not in _FAMILIES or (_RULES_OF_KERNEL.get(priority) == table and not parts.keys() & _SELECTORS):
            continue
        plain = (
            action == rtnl.FR_ACT_TO_TBL
            and not tos
            and not flags & rtnl.FIB_RULE_INVERT
            and parts.keys() <= _RULE_WORDS
            and all(number(parts.get(word, b"\xff" * 4)) == _NO_LIMIT for word in _SUPPRESSORS)
        )
        if not plain:
            raise SpecError(
                f"routing rule {priority} cannot be had in a virtual machine: it is more than source, destination, "
                "interface or mark, and a table",
                hint="have the network plugin set plain rules",
            )
        yield Rule(
            family=_FAMILIES[family],
            priority=priority,
            table=table,
            source=_network(parts.get(rtnl.FRA_SRC), src_prefix),
            destination=_network(parts.get(rtnl.FRA_DST), dst_prefix),
            input=text(parts.get(rtnl.FRA_IIFNAME, b"")),
            output=text(parts.get(rtnl.FRA_OIFNAME, b"")),
            mark=number(parts.get(rtnl.FRA_FWMARK)),
            mask=number(parts.get(rtnl.FRA_FWMASK)),
        )


def _network(value: bytes | None, prefix: int) -> str:
    """Empty for all."""
    return f"{ipaddress.ip_address(value)}/{prefix}" if value else ""
