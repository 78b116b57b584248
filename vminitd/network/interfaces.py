"""Interfaces by MAC address, and what is set while they are down."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from api.guest_pb2 import Interface
from netlink.message import Request
from vminitd import deadlines
from vminitd.errors import DeviceError, RequestError
from vminitd.network.connection import Connection, Link
from vminitd.network.requests import mac_bytes, set_link
from vminitd.uevent import Uevents

_LOOPBACK = 1
# The kernel tells of an interface when it registers it, and of its device when the driver is done with that.
_SUBSYSTEMS = ("net", "virtio")


class Found(NamedTuple):
    """What is wanted of an interface, and the one that is there. `what` names it in an error."""

    wanted: Interface
    link: Link
    what: str


async def find(connection: Connection, uevents: Uevents, wanted: Sequence[Interface]) -> list[Found]:
    """The interfaces with those MAC addresses, once all are there.

    Raises DeviceError, which names those that never are, RequestError for what is no MAC address or comes twice, and
    KernelError.
    """
    by_mac = _by_mac(wanted)
    if not by_mac:
        return []
    there: Mapping[bytes, Link] = {}

    def look() -> Mapping[bytes, Link] | None:
        nonlocal there
        there = _look(connection, by_mac)
        return there if there.keys() >= by_mac.keys() else None

    if look() is None:
        try:
            await uevents.until(look, "the network", deadlines.INTERFACE, _SUBSYSTEMS)
        except DeviceError:
            missing = ", ".join(name(each) for mac, each in by_mac.items() if mac not in there)
            raise DeviceError(f"{missing} did not appear within {deadlines.INTERFACE:g} s") from None
    return [Found(each, there[mac], name(each)) for mac, each in by_mac.items()]


def _look(connection: Connection, wanted: Collection[bytes]) -> dict[bytes, Link]:
    """Interfaces by MAC address: those that are wanted, or all."""
    # The kernel numbers them as they come. So these are they, most often, and the others need not be listed.
    likely = (connection.link(number) for number in range(_LOOPBACK + 1, _LOOPBACK + 1 + len(wanted)))
    found = {link.mac: link for link in likely if link is not None}
    return found if found.keys() >= set(wanted) else {link.mac: link for link in connection.links()}


def name(wanted: Interface) -> str:
    """For an error."""
    return f"interface {wanted.name} (MAC {wanted.mac})"


def settings(found: Sequence[Found]) -> Iterator[Request]:
    """What is set while they are down: names, MTU, queue lengths. Pure.

    A name that another of them still has cannot be given: such a one first gets another name. Raises RequestError for
    a name that is wanted twice.
    """
    wanted = [each.wanted.name for each in found]
    for each in found:
        if wanted.count(each.wanted.name) > 1:
            raise RequestError(f"{each.what}: two interfaces are to have that name")
    in_the_way = {each.link.number for each in found if each.link.name in wanted and each.link.name != each.wanted.name}
    for each in found:
        if each.link.number in in_the_way:
            yield _set(each, f"qbxold{each.link.number}")
    for each in found:
        interface = each.wanted
        yield set_link(
            each.link.number,
            f"{each.what}, MTU {interface.mtu}",
            name=interface.name if interface.name != each.link.name else "",
            mtu=interface.mtu,
            tx_queue_length=interface.tx_queue_length,
            link_local=interface.link_local if interface.ipv6 else None,
        )


def _set(each: Found, to: str) -> Request:
    return set_link(each.link.number, each.what, name=to, mtu=0, tx_queue_length=0, link_local=None)


def _by_mac(wanted: Sequence[Interface]) -> dict[bytes, Interface]:
    by_mac: dict[bytes, Interface] = {}
    for each in wanted:
        mac = mac_bytes(each.mac, f"interface {each.name}")
        if mac in by_mac:
            raise RequestError(f"{name(each)}: interface {by_mac[mac].name} has that MAC address, too")
        by_mac[mac] = each
    return by_mac
