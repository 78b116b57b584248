"""Netlink messages: what a request is in bytes, and what the kernel's answers say. Pure.

A message is a header, a body of a fixed size for its kind, and attributes; each attribute has a length, a kind and a
value, and begins at a multiple of 4 bytes. Numbers are in the machine's own order. See netlink(7), linux/netlink.h.
"""

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800

NLMSG_ERROR = 2
NLMSG_DONE = 3

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_NESTED = 0x8000
_KIND_MASK = 0x3FFF
# In the header of an answer: attributes follow.
_ACK_TLVS = 0x200
_EXPLANATION = 1  # NLMSGERR_ATTR_MSG


class Request(NamedTuple):
    """`kind` is an RTM_*, `flags` are NLM_F_*, `body` has the attributes too; `what` names it in an error."""

    kind: int
    flags: int
    body: bytes
    what: str


class Message(NamedTuple):
    """One of the kernel's; `body` has the attributes too."""

    kind: int
    flags: int
    sequence: int
    body: memoryview


class Verdict(NamedTuple):
    """What became of the request of that number: `errno` is 0 for success. `words` are the kernel's."""

    sequence: int
    errno: int
    words: str


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute that is an unsigned number of 32 bits."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a text, ended by NUL."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def batch(requests: Sequence[Request], first: int) -> bytes:
    """All of `requests` for one sendmsg(2), numbered from `first`.

    The kernel takes them one after the other, and does not stop at one that fails. It always answers one that has
    failed; only the last is to be answered in any case, so that one knows when all answers are there.
    """
    parts: list[bytes] = []
    last = len(requests) - 1
    for index, request in enumerate(requests):
        flags = request.flags | NLM_F_REQUEST | (NLM_F_ACK if index == last else 0)
        parts.append(_HEADER.pack(_HEADER.size + len(request.body), request.kind, flags, first + index, 0))
        parts.append(request.body)
        parts.append(bytes(-len(request.body) % 4))
    return b"".join(parts)


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages in what recv(2) gave. Raises ValueError for what is none."""
    left = memoryview(datagram)
    while left:
        if len(left) < _HEADER.size:
            raise ValueError(f"a netlink message of {len(left)} bytes")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(left)
        if not _HEADER.size <= length <= len(left):
            raise ValueError(f"a netlink message that says {length} bytes, in {len(left)}")
        yield Message(kind, flags, sequence, left[_HEADER.size : length])
        left = left[length + -length % 4 :]


def attributes(data: memoryview) -> dict[int, memoryview]:
    """The values of attributes by kind; of equal kinds the last. Raises ValueError for what is none."""
    found: dict[int, memoryview] = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if not _ATTRIBUTE.size <= length <= len(data):
            raise ValueError(f"a netlink attribute that says {length} bytes, in {len(data)}")
        found[kind & _KIND_MASK] = data[_ATTRIBUTE.size : length]
        data = data[length + -length % 4 :]
    return found


def verdict(message: Message) -> Verdict | None:
    """What an answer says of a request, or of the end of a dump; None if it is something else.

    The words are those of the errno and the kernel's explanation, where it gives one. An error repeats the header of
    the request, and no more of it (NETLINK_CAP_ACK). Raises ValueError.
    """
    if message.kind not in (NLMSG_ERROR, NLMSG_DONE):
        return None
    if len(message.body) < _ERROR.size:
        raise ValueError(f"a netlink answer of {len(message.body)} bytes")
    errno = -_ERROR.unpack_from(message.body)[0]
    words = os.strerror(errno) if errno else ""
    if errno and message.flags & _ACK_TLVS:
        behind = _ERROR.size + (_HEADER.size if message.kind == NLMSG_ERROR else 0)
        explanation = bytes(attributes(message.body[behind:]).get(_EXPLANATION, b""))
        words += f" ({explanation.rstrip(bytes(1)).decode(errors='replace')})" if explanation else ""
    return Verdict(message.sequence, errno, words)
