"""The routes and rules of a network namespace, read from rtnetlink's messages. Pure.

Without those that the kernel made itself, for addresses and in the table `local`: the guest's kernel makes its own. One
that the CNI plugin ptp has put into the place of such a route tells the guest to leave that out.
What our message has no word for is refused by name; a route that is left out quietly is a fault that nobody finds.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from api import guest_pb2
from shim.errors import SpecError
from shim.network.links import address
from shim.network.rtnetlink import attributes, number, text

# struct rtmsg and struct fib_rule_hdr, for every family.
_ROUTE = struct.Struct("=BBBBBBBBI")
REQUEST: Final = bytes(_ROUTE.size)
RULE_REQUEST: Final = bytes(_ROUTE.size)
# struct rtnexthop: one of several ways, behind which its own attributes are.
_HOP = struct.Struct("=HBBI")

# linux/rtnetlink.h
_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _METRICS, _MULTIPATH, _TABLE, _VIA, _ENCAP = (
    *(1, 4, 5, 6, 7, 8, 9, 15, 18, 22),
)
_METRIC_MTU: Final = 2
_CLONED: Final = 0x200
_ON_LINK: Final = 0x4
_PROTO_KERNEL: Final = 2
_LOCAL, _MAIN, _DEFAULT = 255, 254, 253
_UNICAST: Final = 1
# Those that lead nowhere: blackhole, unreachable, prohibit, throw.
_NOWHERE: Final = frozenset((6, 7, 8, 9))
# linux/fib_rules.h
_RULE_DST, _RULE_SRC, _RULE_INPUT, _RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK, _RULE_OUTPUT = (
    *(1, 2, 3, 6, 10, 15, 16, 17),
)
_RULE_SUPPRESS_GROUP, _RULE_SUPPRESS_PREFIX, _RULE_PAD, _RULE_PROTOCOL = 13, 14, 18, 21
_RULE_WORDS: Final = frozenset(
    (
        *(_RULE_DST, _RULE_SRC, _RULE_INPUT, _RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK, _RULE_OUTPUT),
        *(_RULE_SUPPRESS_GROUP, _RULE_SUPPRESS_PREFIX, _RULE_PAD, _RULE_PROTOCOL),
    )
)
_NO_LIMIT: Final = 0xFFFFFFFF
_TO_TABLE: Final = 1
_INVERTED: Final = 0x2
# The kernel's own: by priority, to which table.
_RULES_OF_KERNEL: Final = {0: _LOCAL, 32766: _MAIN, 32767: _DEFAULT}
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
    type: int = _UNICAST
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
        family, prefix, source_prefix, tos, table, protocol, scope, kind, flags = _ROUTE.unpack_from(message)
        parts = attributes(message, _ROUTE.size)
        table = number(parts.get(_TABLE)) or table
        if family not in _FAMILIES or table == _LOCAL or protocol == _PROTO_KERNEL or flags & _CLONED:
            continue
        destination = f"{address(parts[_DST])}/{prefix}" if _DST in parts else ""
        for hop in _hops(family, parts, flags):
            route = Route(
                family=_FAMILIES[family],
                destination=destination,
                gateway=address(hop.parts[_GATEWAY]) if _GATEWAY in hop.parts else "",
                interface="" if kind in _NOWHERE else names.get(hop.index, ""),
                scope=scope,
                metric=number(parts.get(_PRIORITY)),
                on_link=bool(hop.flags & _ON_LINK),
                source=address(parts[_PREFSRC]) if _PREFSRC in parts else "",
                table=0 if table == _MAIN else table,
                type=kind,
                mtu=number(attributes(parts.get(_METRICS, b"")).get(_METRIC_MTU)),
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
    ways = parts.get(_MULTIPATH, b"")
    if not ways or family != _AF_INET6:
        yield _Hop(number(parts.get(_OIF)), flags, parts)
        return
    offset = 0
    while offset + _HOP.size <= len(ways):
        length, hop_flags, weight, index = _HOP.unpack_from(ways, offset)
        yield _Hop(index, hop_flags, attributes(ways[: offset + length], offset + _HOP.size), weight)
        offset += (max(length, _HOP.size) + 3) & ~3


def _obstacle(hop: _Hop, kind: int, route: Route, *, tos: int, source_prefix: int) -> str:
    parts = hop.parts
    if _MULTIPATH in parts:
        return "it has several next hops"
    if hop.weight:
        return "its next hops have weights"
    if _ENCAP in parts:
        return "it encapsulates"
    if _VIA in parts:
        return "its gateway is of another address family"
    if tos:
        return f"it is for type of service {tos:#x} alone"
    if source_prefix:
        return "it is for some source addresses alone"
    if kind not in _NOWHERE | {_UNICAST}:
        return f"it is of type {kind}"
    if kind == _UNICAST and not route.interface:
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
        family, dst_prefix, src_prefix, tos, table, _, _, action, flags = _ROUTE.unpack_from(message)
        parts = attributes(message, _ROUTE.size)
        table = number(parts.get(_RULE_TABLE)) or table
        priority = number(parts.get(_RULE_PRIORITY))
        if family not in _FAMILIES or (_RULES_OF_KERNEL.get(priority) == table and _selects_all(parts)):
            continue
        plain = (
            action == _TO_TABLE
            and not tos
            and not flags & _INVERTED
            and parts.keys() <= _RULE_WORDS
            and all(number(parts.get(word, b"\xff" * 4)) == _NO_LIMIT for word in _RULE_SUPPRESS)
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
            source=_network(parts.get(_RULE_SRC), src_prefix),
            destination=_network(parts.get(_RULE_DST), dst_prefix),
            input=text(parts.get(_RULE_INPUT, b"")),
            output=text(parts.get(_RULE_OUTPUT, b"")),
            mark=number(parts.get(_RULE_MARK)),
            mask=number(parts.get(_RULE_MASK)),
        )


_RULE_SUPPRESS: Final = (_RULE_SUPPRESS_GROUP, _RULE_SUPPRESS_PREFIX)


def _selects_all(parts: Mapping[int, bytes]) -> bool:
    return not parts.keys() & {_RULE_SRC, _RULE_DST, _RULE_INPUT, _RULE_OUTPUT, _RULE_MARK}


def _network(value: bytes | None, prefix: int) -> str:
    """Empty for all."""
    return f"{ipaddress.ip_address(value)}/{prefix}" if value else ""
