"""Whether somebody else has the addresses that the containers' network gives: routes of the host, other networks."""

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cni import NetworkList
from cni.document import Json
from netlink import rtnl
from netlink.attribute import attributes, number
from shim.check.host import Host
from shim.check.line import Report
from shim.check.thread import in_thread
from shim.network.rtnetlink import Rtnetlink

_Net = ipaddress.IPv4Network | ipaddress.IPv6Network
# A bridge is told by its name which routes of the host are its own.
_BRIDGES: Final = ("bridge",)
_REQUEST: Final = bytes(rtnl.RTMSG.size)
# Multicast, and what each interface has of IPv6.
_NOT_ASKED: Final = (
    ipaddress.ip_network("224.0.0.0/4"),
    ipaddress.ip_network("ff00::/8"),
    ipaddress.ip_network("fe80::/10"),
)


@dataclass(frozen=True, slots=True)
class Route:
    """One of the host's: where to, and by which interface."""

    to: _Net
    interface: str


async def look(host: Host, report: Report, network: NetworkList, others: list[NetworkList]) -> None:
    """See the module."""
    ours = ranges(network)
    own = bridges(network)
    found = conflicts(ours, await in_thread(routes), own)
    for route in found:
        report.warning(
            f"network {network.name!r}",
            f"the host has a route to {route.to} by {route.interface}, within the containers' addresses: what is there "
            "cannot be reached from them, or they cannot",
            f"give {network.source} another subnet",
        )
    for other in others:
        shared = [(mine, its) for mine in ours for its in ranges(other) if _overlap(mine, its)]
        if shared and not own & bridges(other):
            found.append(Route(shared[0][1], other.name))
            report.warning(
                f"network {network.name!r}",
                f"{other.source} gives addresses of {shared[0][1]}, and {network.source} of {shared[0][0]}",
                f"give {network.source} another subnet",
            )
    if not found and ours:
        report.ok(f"network {network.name!r}", f"nobody else has {', '.join(map(str, ours))}")


def ranges(network: NetworkList) -> list[_Net]:
    """The subnets that its host-local plugin gives addresses of; one that is none is the plugin's to refuse."""
    found = []
    for plugin in network.plugins:
        ipam = plugin.conf.get("ipam")
        for text in _subnets(ipam) if isinstance(ipam, dict) else ():
            try:
                found.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                continue
    return found


def _subnets(ipam: Json) -> Iterator[str]:
    if isinstance(single := ipam.get("subnet"), str):
        yield single
    sets = ipam.get("ranges")
    for each in sets if isinstance(sets, list) else ():
        for item in each if isinstance(each, list) else ():
            if isinstance(item, dict) and isinstance(text := item.get("subnet"), str):
                yield text


def bridges(network: NetworkList) -> set[str]:
    """The host's interfaces that are its own."""
    return {
        name if isinstance(name := plugin.conf.get("bridge"), str) else "cni0"
        for plugin in network.plugins
        if plugin.type in _BRIDGES
    }


def conflicts(ours: list[_Net], found: list[Route], own: set[str]) -> list[Route]:
    """The routes into our addresses that are not our own bridges'. A default route leads everywhere, and counts not."""
    return [
        route
        for route in found
        if route.interface not in own
        and route.to.prefixlen
        and not any(_overlap(route.to, each) for each in _NOT_ASKED)
        and any(_overlap(route.to, mine) for mine in ours)
    ]


def _overlap(one: _Net, other: _Net) -> bool:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one.overlaps(other)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one.overlaps(other)
    return False


def routes() -> list[Route]:
    """All routes of the host, of all tables. Blocks, for a millisecond. Raises OSError."""
    found = []
    with Rtnetlink() as kernel:
        for message in kernel.dump(rtnl.RTM_GETROUTE, _REQUEST):
            family, length, *_ = rtnl.RTMSG.unpack_from(message)
            parts = attributes(message, rtnl.RTMSG.size)
            if family not in (socket.AF_INET, socket.AF_INET6) or rtnl.RTA_DST not in parts:
                continue
            to = ipaddress.ip_network((ipaddress.ip_address(parts[rtnl.RTA_DST]), length), strict=False)
            found.append(Route(to, _name(number(parts.get(rtnl.RTA_OIF)))))
    return found


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # a route of several ways, or none; or the interface has just gone
        return "several ways"
