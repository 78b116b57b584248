"""Attributes: a length, a kind and a value each, which begin at multiples of 4 bytes: linux/netlink.h. Pure."""

from __future__ import annotations

import errno
import struct
import sys

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("=HH")
_NESTED = 0x8000  # NLA_F_NESTED
_KIND_MASK = 0x3FFF  # NLA_TYPE_MASK


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _HEADER.pack(_HEADER.size + len(value), kind) + value + bytes(-len(value) % 4)


def u32(kind: int, value: int) -> bytes:
    """An attribute that is an unsigned number of 32 bits."""
    return attribute(kind, value.to_bytes(4, sys.byteorder))


def string(kind: int, value: str) -> bytes:
    """An attribute that is a text, ended by NUL."""
    return attribute(kind, value.encode(errors="surrogateescape") + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes, and marked as such."""
    return attribute(kind | _NESTED, b"".join(attributes))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The values of the attributes from `offset` on, by kind; of equal kinds the last. Raises OSError."""
    return dict(each_attribute(data, offset))


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute from `offset` on. Raises OSError for what is none."""
    while offset + _HEADER.size <= len(data):
        length, kind = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise OSError(errno.EBADMSG, f"a netlink attribute that says {length} bytes, in {len(data) - offset}")
        yield kind & _KIND_MASK, data[offset + _HEADER.size : offset + length]
        offset += length + -length % 4


def number(value: bytes | None) -> int:
    """What an attribute says that is an unsigned number of any width; 0 where there is none."""
    return int.from_bytes(value or b"", sys.byteorder)


def text(value: bytes) -> str:
    """What an attribute says that is a text."""
    return value.rstrip(b"\0").decode(errors="replace")
