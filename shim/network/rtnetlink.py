"""Talks to the kernel about links, addresses, routes and traffic control of one network namespace (rtnetlink(7)).

A codec of our own, because a library's import is most of what it costs: pyroute2 takes 75 ms and 12 MiB, this 1 ms
(docs/decisions/0022). A socket belongs to the namespace in which it was opened, and can be used from anywhere.

Import-light: `delete` takes back by it what a killed shim has left (shim/network/tap.py).
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

# linux/rtnetlink.h
NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
GETADDR, GETROUTE, GETNEIGH, GETRULE = 22, 26, 30, 34
NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38
NEWTFILTER, DELTFILTER, GETTFILTER = 44, 45, 46
# linux/netlink.h
ACK, DUMP, EXCLUSIVE, CREATE = 0x4, 0x300, 0x200, 0x400
_REQUEST = 0x1
_ERROR, _DONE = 2, 3
_ROUTE = 0
_DUMP_INTERRUPTED = 0x10
_ACK_HAS_ATTRIBUTES = 0x200
_ACK_MESSAGE = 1
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK, _GET_STRICT_CHECK = 10, 11, 12
_TYPE_MASK = 0x3FFF

# struct ifinfomsg: family, kind of hardware, index, flags, which of them are meant.
LINK = struct.Struct("=BxHiII")
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU = 1, 3, 4

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
# The kernel makes no answer larger than 32 KiB (net/netlink/af_netlink.c, netlink_dump).
_RECEIVE_BYTES = 64 << 10
# A dump that another's change has come into is asked for again.
_DUMPS_MAX = 20


class Rtnetlink:
    """A connection to the kernel about the network namespace of the thread that makes it. For one thread at a time."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _ROUTE)
        self._number = 0
        # Errors with the kernel's own words and without our question; dumps of what was asked for alone.
        for option in (_CAP_ACK, _EXT_ACK, _GET_STRICT_CHECK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have the kernel do one thing. Raises OSError with the kernel's words, where it has any."""
        self._send(kind, ACK | flags, body)
        for _ in self._answers():
            pass

    def ask(self, kind: int, body: bytes) -> bytes:
        """One thing of the kernel's: its message without the header. Raises OSError where there is no such thing."""
        self._send(kind, ACK, body)
        (found,) = self._answers()
        return found

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything of one kind: the messages without their headers. Raises OSError."""
        for _ in range(_DUMPS_MAX):
            self._send(kind, DUMP, body)
            try:
                return list(self._answers())
            except InterruptedError:
                continue
        raise OSError(errno.EAGAIN, "the namespace changes faster than it can be read")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | flags, self._number, 0)
        self._socket.send(header + body)

    def _answers(self) -> Iterator[bytes]:
        """What the kernel answers to the last question. Raises InterruptedError for a dump that is not of one piece."""
        interrupted = False
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            for kind, flags, number, body in _messages(data):
                if number != self._number:
                    continue
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    _check(body, flags, 4 if kind == _DONE else 4 + _HEADER.size)
                    if interrupted:
                        raise InterruptedError
                    return
                yield body


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Type, flags, sequence number and body of each message."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, number, _pid = _HEADER.unpack_from(data, offset)
        yield kind, flags, number, data[offset + _HEADER.size : offset + length]
        offset += (max(length, _HEADER.size) + 3) & ~3


def _check(body: bytes, flags: int, fixed: int) -> None:
    """Raise what an acknowledgement or the end of a dump says; its fixed part is so long (struct nlmsgerr)."""
    number = -int.from_bytes(body[:4], "little", signed=True) if len(body) >= 4 else 0
    if number > 0:
        words = attributes(body, fixed).get(_ACK_MESSAGE, b"") if flags & _ACK_HAS_ATTRIBUTES else b""
        told = text(words)
        raise OSError(number, f"{os.strerror(number)}: {told}" if told else os.strerror(number))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes behind a message's fixed part by their types; of several of one type the last."""
    return dict(each_attribute(data, offset))


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes behind a message's fixed part, in their order."""
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded; several joined are the value of a nested one."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def string(kind: int, value: str) -> bytes:
    """An attribute that is a text."""
    return attribute(kind, os.fsencode(value) + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute that is a number."""
    return attribute(kind, struct.pack("=I", value))


def text(value: bytes) -> str:
    """What an attribute says that is a text."""
    return value.rstrip(b"\0").decode(errors="replace")


def number(value: bytes | None) -> int:
    """What an attribute says that is an unsigned number of any width; 0 where there is none."""
    return int.from_bytes(value or b"", "little")


def link(index: int = 0, *, flags: int = 0, change: int = 0, parts: bytes = b"") -> bytes:
    """A message about a link: the flags to set among those to change, then attributes."""
    return LINK.pack(0, 0, index, flags, change) + parts
