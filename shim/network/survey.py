"""What is in a network namespace, as values: what the guest is to have, and what cannot be connected.

CNI plugins, hooks and people set interfaces up in a namespace in any way they like; the machine gets a copy of it.
What a copy would not be true to is refused by name. The messages are the kernel's (rtnetlink(7)); how each is read is
in links.py and routes.py. Pure but for `survey`, which asks the kernel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from api import guest_pb2
from netlink import rtnl
from shim.errors import HostError, SpecError
from shim.network import links, netns, routes
from shim.network.links import Address, Interface, Neighbour
from shim.network.routes import Route, Rule
from shim.network.rtnetlink import Rtnetlink

__all__ = ["Address", "Interface", "Neighbour", "Route", "Rule", "Survey", "survey"]

# Of the slots of a machine's bridge (vm/machine.py, SLOTS) one is vsock's, and disks that find no drive take some.
INTERFACES_MAX: Final = 16


@dataclass(frozen=True, slots=True)
class Survey:
    """One namespace's content. Routes are in an order in which they can be set."""

    interfaces: tuple[Interface, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[Rule, ...] = ()

    def message(self, queues: int) -> guest_pb2.NetworkConfig:
        """For the guest, whose NICs have `queues` pairs of queues each."""
        return guest_pb2.NetworkConfig(
            interfaces=[interface.message(queues) for interface in self.interfaces],
            routes=[route.message() for route in self.routes],
            rules=[rule.message() for rule in self.rules],
        )


@dataclass(frozen=True, slots=True)
class Dumps:
    """The kernel's answers to what is asked of it, as they are."""

    links: Sequence[bytes]
    addresses: Sequence[bytes]
    neighbours: Sequence[bytes]
    routes: Sequence[bytes]
    rules: Sequence[bytes]


def survey(fd: int) -> Survey:
    """What is in the namespace. Blocks, for a millisecond.

    Raises SpecError for what cannot be connected, with its name and what to do, HostError where the kernel fails.
    """
    try:
        with netns.within(fd, Rtnetlink) as kernel:
            dumps = Dumps(
                links=kernel.dump(rtnl.RTM_GETLINK, rtnl.ALL_LINKS),
                addresses=kernel.dump(rtnl.RTM_GETADDR, links.ADDRESS_REQUEST),
                neighbours=kernel.dump(rtnl.RTM_GETNEIGH, links.NEIGHBOUR_REQUEST),
                routes=kernel.dump(rtnl.RTM_GETROUTE, routes.REQUEST),
                rules=kernel.dump(rtnl.RTM_GETRULE, routes.RULE_REQUEST),
            )
    except OSError as error:
        raise HostError(f"the network namespace cannot be looked into: {error.strerror or error}") from error
    return read(dumps)


def read(dumps: Dumps) -> Survey:
    """What the answers say. Raises SpecError."""
    interfaces = links.interfaces(dumps.links, dumps.addresses, dumps.neighbours)
    if len(interfaces) > INTERFACES_MAX:
        raise SpecError(
            f"the network namespace has {len(interfaces)} interfaces, a virtual machine has at most {INTERFACES_MAX}",
            hint="attach the container to fewer networks",
        )
    names = {interface.index: interface.name for interface in interfaces} | {links.LOOPBACK: "lo"}
    return Survey(
        tuple(interfaces),
        tuple(routes.ordered(routes.routes(dumps.routes, names))),
        tuple(routes.rules(dumps.rules)),
    )
