"""The socket on which the kernel is told of the network: rtnetlink(7).

A request is carried out while it is sent, and its answer is there when sendmsg(2) returns: nothing here waits.
"""

import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from netlink import rtnl
from netlink.attribute import attributes, text
from netlink.message import (
    DATAGRAM_BYTES,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    SOL_NETLINK,
    Request,
    batch,
    messages,
    verdict,
)
from vminitd.errors import KernelError
from vminitd.network.requests import GET_LINKS

_SIOCGIFNAME = 0x8910
_SIOCGIFHWADDR = 0x8927
_NAME_SIZE = 16
# Name, and a number; name, kind of hardware, address: struct ifreq.
_IFREQ = struct.Struct("=16si20x")
_IFREQ_MAC = struct.Struct("=16sH6s16x")


class Link(NamedTuple):
    """An interface that is there."""

    number: int
    name: str
    mac: bytes


class Connection:
    """Made in a template, it serves its clones: it says nothing of who asked for it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._sequence = 1

    def close(self) -> None:
        self.socket.close()

    def carry_out(self, requests: Sequence[Request]) -> None:
        """Has the kernel do all of it, in order. Raises KernelError for the first that fails, with its words.

        Those behind that one are carried out, or fail, like the others.
        """
        while requests:
            size = count = 0
            for request in requests:
                size += len(request.body) + 20
                if count and size > DATAGRAM_BYTES:  # much less than what a socket takes at once
                    break
                count += 1
            self._exchange(requests[:count])
            requests = requests[count:]

    def link(self, number: int) -> Link | None:
        """The interface of that number, if there is one: netdevice(7)."""
        try:
            named = fcntl.ioctl(self.socket, _SIOCGIFNAME, _IFREQ.pack(b"", number))
            _, _, mac = _IFREQ_MAC.unpack(fcntl.ioctl(self.socket, _SIOCGIFHWADDR, named))
        except OSError:
            return None
        return Link(number, named[:_NAME_SIZE].rstrip(b"\0").decode(), mac)

    def links(self) -> list[Link]:
        """Every interface. Under TCG that takes ten times as long as `link`, the first time. Raises KernelError."""
        found: list[Link] = []
        for body in self._exchange([GET_LINKS]):
            values = attributes(body, rtnl.IFINFOMSG.size)
            number = int(rtnl.IFINFOMSG.unpack_from(body)[2])
            found.append(Link(number, text(values[rtnl.IFLA_IFNAME]), values.get(rtnl.IFLA_ADDRESS, b"")))
        return found

    def _exchange(self, requests: Sequence[Request]) -> list[bytes]:
        """Sends them, reads up to the answer to the last one; gives the bodies of the links that came before it."""
        first = self._sequence
        self._sequence = last = first + len(requests)
        last -= 1
        links: list[bytes] = []
        failure = ""
        try:
            self.socket.send(batch(requests, first))
            while True:
                for message in messages(self.socket.recv(DATAGRAM_BYTES)):
                    if not first <= message.sequence <= last:
                        continue
                    if message.kind == rtnl.RTM_NEWLINK:
                        links.append(message.body)
                    if (said := verdict(message)) is None:
                        continue
                    number, words = said
                    if number and not failure:
                        failure = f"{requests[message.sequence - first].what}: {words}"
                    if message.sequence == last:
                        if failure:
                            raise KernelError(failure)
                        return links
        except OSError as error:  # BlockingIOError: more answers than the socket's buffer holds
            raise KernelError(failure or f"{requests[0].what}: {error}") from error
