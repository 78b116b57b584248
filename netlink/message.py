"""Messages: a header, a fixed part that is the same for all of a kind, and attributes. Pure.

See netlink(7), linux/netlink.h; how the kernel answers: net/netlink/af_netlink.c, netlink_ack() and netlink_dump().
"""

from __future__ import annotations

import errno
import os
import struct

from netlink.attribute import attributes, text

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NLM_F_REQUEST, NLM_F_ACK = 0x1, 0x4
NLM_F_DUMP = 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
# In an answer: a dump that another's change has come into; attributes follow.
NLM_F_DUMP_INTR, NLM_F_ACK_TLVS = 0x10, 0x200

NLMSG_ERROR, NLMSG_DONE = 2, 3

# Options of a socket. `verdict` relies on both: errors with the kernel's own words, and without the request.
SOL_NETLINK = 270
NETLINK_CAP_ACK, NETLINK_EXT_ACK = 10, 11
# A dump is checked, and narrowed to what was asked for.
NETLINK_GET_STRICT_CHK = 12

# The most that the kernel puts into one datagram of a dump.
DATAGRAM_BYTES = 32 << 10

# length, kind, flags, number, port: struct nlmsghdr
_HEADER = struct.Struct("=IHHII")
_ERROR = struct.Struct("=i")
_NLMSGERR_ATTR_MSG = 1


class Request:
    """`kind` is its family's, `flags` are NLM_F_*, `body` has the attributes too; `what` names it in an error."""

    __slots__ = ("body", "flags", "kind", "what")

    def __init__(self, kind: int, flags: int, body: bytes, what: str) -> None:
        self.kind = kind
        self.flags = flags
        self.body = body
        self.what = what


class Message:
    """One of the kernel's, to the request of the number `sequence`; `body` has the attributes too."""

    __slots__ = ("body", "flags", "kind", "sequence")

    def __init__(self, kind: int, flags: int, sequence: int, body: bytes) -> None:
        self.kind = kind
        self.flags = flags
        self.sequence = sequence
        self.body = body


def packed(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """One request, padded."""
    header = _HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, sequence, 0)
    return header + body + bytes(-len(body) % 4)


def batch(requests: Sequence[Request], first: int) -> bytes:
    """All of `requests` for one sendmsg(2), numbered from `first`.

    The kernel takes them one after the other, and does not stop at one that fails. It always answers one that has
    failed; only the last is to be answered in any case, so that one knows when all answers are there.
    """
    last = len(requests) - 1
    return b"".join(
        packed(each.kind, each.flags | (NLM_F_ACK if index == last else 0), first + index, each.body)
        for index, each in enumerate(requests)
    )


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages in what recv(2) gave. Raises OSError for what is none."""
    offset = 0
    while left := max(len(datagram) - offset, 0):
        if left < _HEADER.size:
            raise OSError(errno.EBADMSG, f"a netlink message of {left} bytes")
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if not _HEADER.size <= length <= left:
            raise OSError(errno.EBADMSG, f"a netlink message that says {length} bytes, in {left}")
        yield Message(kind, flags, sequence, datagram[offset + _HEADER.size : offset + length])
        offset += length + -length % 4


def verdict(message: Message) -> tuple[int, str] | None:
    """What became of a request: its errno, 0 for success, and words. None for a message that does not say.

    The end of a dump says it, too. The words are those of the errno with the kernel's explanation, where it gives one.
    Raises OSError for what is no answer.
    """
    if message.kind not in (NLMSG_ERROR, NLMSG_DONE):
        return None
    if len(message.body) < _ERROR.size:
        raise OSError(errno.EBADMSG, f"a netlink answer of {len(message.body)} bytes")
    number = -int(_ERROR.unpack_from(message.body)[0])
    if not number:
        return 0, ""
    words = os.strerror(number)
    if message.flags & NLM_F_ACK_TLVS:
        # An error repeats the header of the request, and no more of it (NETLINK_CAP_ACK).
        behind = _ERROR.size + (_HEADER.size if message.kind == NLMSG_ERROR else 0)
        explanation = text(attributes(message.body, behind).get(_NLMSGERR_ATTR_MSG, b""))
        words += f" ({explanation})" if explanation else ""
    return number, words
