"""Which addresses of this machine are tried for a connection that the host wants.

Mostly the one that was dialled there. But who dials localhost there means the container, wherever in it the server
listens, and goes on to other addresses where that one refuses: containerd to ::1, and newer ones to the container's own
addresses (sandbox_portforward_linux.go). As the host's side has accepted the connection before anybody could refuse it,
that is done here.
"""

import socket
from contextlib import suppress
from typing import NamedTuple

from vminitd.errors import RequestError

_SIX = "/proc/net/if_inet6"
_FOUR = "/proc/net/fib_trie"
_LOCALHOST = "127.0.0.1"
_MOST_PORT = 65535
# The scope in /proc/net/if_inet6, IPV6_ADDR_LINKLOCAL, IPV6_ADDR_LOOPBACK: neither is tried for another address.
_NARROW = 0x30


class Target(NamedTuple):
    """What socket(2) and connect(2) take."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


def targets(address: str, port: int) -> list[Target]:
    """In the order in which they are tried. Raises RequestError for what is no IP address, or no port."""
    if not 0 < port <= _MOST_PORT:
        raise RequestError(f"there is no TCP port {port}")
    if _is(socket.AF_INET, address):
        addresses = [address]
        if address == _LOCALHOST:
            addresses += ["::1", *_own_four(), *_own_six()]
    elif _is(socket.AF_INET6, address):
        addresses = [address]
    else:
        raise RequestError(f"{address!r} is no IP address")
    return [_target(each, port) for each in addresses]


def _target(address: str, port: int) -> Target:
    if ":" in address:
        return Target(socket.AF_INET6, (address, port, 0, _scope(address)))
    return Target(socket.AF_INET, (address, port))


def _is(family: socket.AddressFamily, address: str) -> bool:
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return False
    return True


def _own_four() -> list[str]:
    """The machine's own IPv4 addresses beyond 127.0.0.0/8.

    The routing table shows each as a leaf, "|-- ADDRESS", and below it "/32 host LOCAL"; both tables have it.
    """
    found: dict[str, None] = {}
    leaf = ""
    with open(_FOUR) as file:
        for line in file:
            words = line.split()
            if words[0] == "|--":
                leaf = words[1]
            elif words == ["/32", "host", "LOCAL"] and not leaf.startswith("127."):
                found[leaf] = None
    return list(found)


def _own_six() -> list[str]:
    """The machine's own IPv6 addresses that hold beyond a link."""
    return [socket.inet_ntop(socket.AF_INET6, address) for address, _, scope in _table() if not scope & _NARROW]


def _scope(address: str) -> int:
    """The index of the interface that has this link-local address; 0 for any other: ipv6(7)."""
    wanted = socket.inet_pton(socket.AF_INET6, address)
    if wanted[0] != 0xFE or wanted[1] & 0xC0 != 0x80:
        return 0
    return next((index for found, index, _ in _table() if found == wanted), 0)


def _table() -> list[tuple[bytes, int, int]]:
    """Address, interface and scope of each IPv6 address: "ADDRESS INDEX PREFIX SCOPE FLAGS NAME", in hexadecimal."""
    table = []
    with suppress(FileNotFoundError), open(_SIX) as file:  # a kernel without IPv6
        for line in file:
            address, index, _prefix, scope, *_ = line.split()
            table.append((bytes.fromhex(address), int(index, 16), int(scope, 16)))
    return table
