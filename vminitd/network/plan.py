"""A NetworkConfig as all that the kernel is told, in order. Pure."""

from collections.abc import Iterator, Sequence

from api.guest_pb2 import NetworkConfig, Route
from netlink.message import Request
from vminitd.errors import RequestError
from vminitd.network import interfaces
from vminitd.network.interfaces import Found
from vminitd.network.requests import (
    Prefix,
    add_address,
    add_neighbour,
    add_route,
    add_rule,
    prefix,
    removal,
    set_flags,
)

_LOOPBACK = ("lo", 1)
_MAIN_TABLES = (0, 254)


def requests(config: NetworkConfig, found: Sequence[Found]) -> Iterator[Request]:
    """Of each interface that was found, and of what goes by them. Raises RequestError."""
    indexes = dict([_LOOPBACK, *((each.wanted.name, each.link.number) for each in found)])
    yield from interfaces.settings(found)
    for each in found:
        wanted, index = each.wanted, each.link.number
        if wanted.up or wanted.promiscuous or wanted.all_multicast:
            yield set_flags(
                index, each.what, up=wanted.up, promiscuous=wanted.promiscuous, all_multicast=wanted.all_multicast
            )
        listed = own_routes(config.routes, wanted.name)
        for address in wanted.addresses:
            yield add_address(index, wanted.name, address, listed)
        for neighbour in wanted.neighbours:
            yield add_neighbour(index, wanted.name, neighbour)
    for route in config.routes:
        if route.interface and route.interface not in indexes:
            raise RequestError(f"route to {route.destination or 'all'}: there is no interface {route.interface}")
        yield add_route(route, indexes[route.interface] if route.interface else 0)
    for rule in config.rules:
        yield add_rule(rule)


def removals(config: NetworkConfig) -> Iterator[Request]:
    """What is taken away of a network whose interfaces have gone: all else went with them. Raises RequestError."""
    for rule in config.rules:
        yield removal(add_rule(rule))
    for route in config.routes:
        if not route.interface:
            yield removal(add_route(route, 0))


def own_routes(routes: Sequence[Route], interface: str) -> frozenset[Prefix]:
    """The networks to which a route by `interface` is given. Raises RequestError.

    The kernel itself makes one for each address, and these routes are all but the kernel's own. So one to the same
    network means that whoever made it has removed the kernel's, which would otherwise win (the CNI plugin ptp sends
    all by its gateway, neighbours too).
    """
    return frozenset(
        prefix(route.destination, "route")
        for route in routes
        if route.interface == interface and route.destination and route.table in _MAIN_TABLES
    )
