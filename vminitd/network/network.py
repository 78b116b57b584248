"""When the network is set up, and who waits for it.

Configure only says what it is to be: while the kernel finds the interfaces, the first container is made already. Its
Create answers when the network is there, or with what went wrong, since a program may look for its addresses first of
all. The interfaces' queues are a matter of speed alone, and of the processors: no more than a Start waits for them.
"""

import asyncio
from collections.abc import Iterator, Sequence

from api.guest_pb2 import NetworkConfig, Route
from ttrpc import StatusError
from vminitd import log, milestones, sysctl
from vminitd.capacity import Capacity
from vminitd.errors import RequestError
from vminitd.network import interfaces, queues
from vminitd.network.connection import Connection
from vminitd.network.interfaces import Found
from vminitd.network.netlink import Request
from vminitd.network.requests import (
    Prefix,
    add_address,
    add_neighbour,
    add_route,
    add_rule,
    prefix,
    set_flags,
)
from vminitd.uevent import Uevents

_LOOPBACK = ("lo", 1)
_MAIN_TABLES = (0, 254)


class Network:
    """The machine's network, which is that of its containers."""

    def __init__(self, uevents: Uevents, capacity: Capacity) -> None:
        self._uevents = uevents
        self._capacity = capacity
        self._connection = Connection()
        self._coming: asyncio.Task[None] | None = None
        self._spreading: asyncio.Task[None] | None = None

    def expect(self, config: NetworkConfig) -> None:
        """The network is to become like this, where there is none, or the one that was expected before has gone."""
        self._coming = asyncio.create_task(self._come(config), name="network")
        if any(each.queues > 1 for each in config.interfaces):
            self._spreading = asyncio.create_task(self._spread(self._coming, config), name="queues")

    def close(self) -> None:
        """Lets go of the kernel; what was set up stays."""
        self._connection.close()

    async def there(self) -> None:
        """Returns when it is as expected. Raises DeviceError, RequestError or KernelError if it does not become so."""
        if self._coming is not None:
            await asyncio.shield(self._coming)

    async def complete(self) -> None:
        """Returns when all queues are used as well. Raises what `there` does."""
        await self.there()
        if self._spreading is not None:
            await asyncio.shield(self._spreading)

    async def _come(self, config: NetworkConfig) -> None:
        found = await interfaces.find(self._connection, self._uevents, config.interfaces)
        for each in found:
            interfaces.quieten_ipv6(each)
        self._connection.carry_out(list(requests(config, found)))
        sysctl.apply(dict(config.sysctls))
        milestones.mark("network")
        log.debug("network", interfaces=len(found), routes=len(config.routes))

    async def _spread(self, coming: asyncio.Task[None], config: NetworkConfig) -> None:
        """Without a network, or without processors, there is nothing to do: others tell of that."""
        try:
            await asyncio.shield(coming)
            await self._capacity.there()
        except StatusError:
            return
        for each in config.interfaces:
            if each.queues > 1:
                queues.use(self._connection.socket.fileno(), each.name, each.queues)


def requests(config: NetworkConfig, found: Sequence[Found]) -> Iterator[Request]:
    """All that the kernel is told, in order. Pure. Raises RequestError."""
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


def own_routes(routes: Sequence[Route], interface: str) -> frozenset[Prefix]:
    """The networks to which a route by `interface` is given. Pure. Raises RequestError.

    The kernel itself makes one for each address, and these routes are all but the kernel's own. So one to the same
    network means that whoever made it has removed the kernel's, which would otherwise win (the CNI plugin ptp sends
    all by its gateway, neighbours too).
    """
    return frozenset(
        prefix(route.destination, "route")
        for route in routes
        if route.interface == interface and route.destination and route.table in _MAIN_TABLES
    )
