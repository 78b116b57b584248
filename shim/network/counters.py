"""What a container has received and sent on each of its interfaces, as the host's kernel has counted it.

The interface in the namespace counts for the container as it would without a machine: what arrives there is received,
what leaves there is sent. Frames that get lost between it and the guest are counted by the TAP, the other way round:
it sends what the guest receives.
"""

import struct
from dataclasses import dataclass
from typing import Final

from netlink import rtnl
from shim.errors import HostError
from shim.network import netns
from shim.network.links import Link, is_wanted
from shim.network.rtnetlink import Rtnetlink
from shim.network.tap import PREFIX, name_of

# linux/if_link.h: struct rtnl_link_stats64 begins with these, each for both directions.
_STATISTICS: Final = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Counters:
    """One interface's; the fields are those of NetworkStat in metrics.proto."""

    name: str
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


def read(fd: int) -> list[Counters]:
    """The counters of what can be connected in a namespace, by index. Blocks. Raises HostError."""
    try:
        with netns.within(fd, Rtnetlink) as kernel:
            links = [Link(message) for message in kernel.dump(rtnl.RTM_GETLINK, rtnl.link())]
    except OSError as error:
        raise HostError(f"the counters of the network cannot be read: {error.strerror or error}") from error
    by_index, by_name = {link.index: link for link in links}, {link.name: link for link in links}
    return [
        _counters(link, by_name.get(name_of(link.name, link.index)))
        for link in sorted(links, key=lambda link: link.index)
        if is_wanted(link, by_index) and not link.name.startswith(PREFIX)
    ]


def _counters(link: Link, tap: Link | None) -> Counters:
    rx_packets, tx_packets, rx_bytes, tx_bytes, rx_errors, tx_errors, rx_dropped, tx_dropped = _statistics(link)
    beyond = _statistics(tap) if tap is not None else (0,) * 8
    return Counters(
        link.name,
        rx_bytes,
        rx_packets,
        rx_errors + beyond[5],
        rx_dropped + beyond[7],
        tx_bytes,
        tx_packets,
        tx_errors + beyond[4],
        tx_dropped + beyond[6],
    )


def _statistics(link: Link) -> tuple[int, ...]:
    return _STATISTICS.unpack_from(link.parts[rtnl.IFLA_STATS64])
