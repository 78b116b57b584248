"""The socket on which the kernel is told of the network: rtnetlink(7).

A request is carried out while it is sent, and its answer is there when sendmsg(2) returns: nothing here waits.
"""

import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from vminitd.errors import KernelError
from vminitd.network.netlink import Request, attributes, batch, messages, verdict
from vminitd.network.requests import GET_LINKS, IFINFO, IFLA_ADDRESS, IFLA_IFNAME, RTM_NEWLINK

# linux/netlink.h
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
# The most that the kernel puts into one datagram of a dump, and much less than what a socket takes at once.
_MOST_BYTES = 32 << 10
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
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self.socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
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
                if count and size > _MOST_BYTES:
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
            values = attributes(body[IFINFO.size :])
            number = int(IFINFO.unpack_from(body)[2])
            name = bytes(values[IFLA_IFNAME]).rstrip(b"\0").decode()
            found.append(Link(number, name, bytes(values.get(IFLA_ADDRESS, b""))))
        return found

    def _exchange(self, requests: Sequence[Request]) -> list[memoryview]:
        """Sends them, reads up to the answer to the last one; gives the bodies of the links that came before it."""
        first = self._sequence
        self._sequence = last = first + len(requests)
        last -= 1
        links: list[memoryview] = []
        failure = ""
        try:
            self.socket.send(batch(requests, first))
            while True:
                for message in messages(self.socket.recv(_MOST_BYTES)):
                    if message.kind == RTM_NEWLINK and message.sequence == last:
                        links.append(message.body)
                    if (answer := verdict(message)) is None or not first <= answer.sequence <= last:
                        continue
                    if answer.errno and not failure:
                        failure = f"{requests[answer.sequence - first].what}: {answer.words}"
                    if answer.sequence == last:
                        if failure:
                            raise KernelError(failure)
                        return links
        except (OSError, ValueError) as error:  # BlockingIOError: more answers than the socket's buffer holds
            raise KernelError(failure or f"{requests[0].what}: {error}") from error
