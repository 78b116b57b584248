"""Frames: how ttrpc cuts a byte stream into messages. Pure; no socket is seen here.

    0            4            8      9       10
    | u32 length | u32 stream | type | flags | data, `length` bytes        (big-endian)

Two promises. Whatever is fed, in pieces of whatever size, gives the same frames. And the decoder never holds
more than one frame of `MAX_DATA` bytes beside the piece that was fed last: a longer one is announced as
`Oversized` when its header is complete, its data are dropped as they come, and the next frame is found.

The first byte is always zero by the protocol's text ("reserved"), since no data are 16 MiB long: another value
there is not ttrpc at all, and `FramingError` says that the connection cannot be used any more.
"""

import enum
import struct
from typing import NamedTuple

from ttrpc.status import Code, StatusError

MAX_DATA = 4 << 20
"""Most bytes of data in one frame, both ways."""

MAX_STREAM_ID = 0xFFFF_FFFF

REMOTE_CLOSED = 0x1
"""The sender of this frame sends no data on this stream any more."""
REMOTE_OPEN = 0x2
"""On a request: data of the sender's will follow."""
NO_DATA = 0x4
"""The frame carries no message (an empty one would be no bytes either)."""

_HEADER = struct.Struct(">IIBB")
_RESERVED = 0xFF00_0000


class FrameType(enum.IntEnum):
    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Frame(NamedTuple):
    """One frame. `type` is a plain number because types to come must be ignored, not refused."""

    stream_id: int
    type: int
    flags: int
    data: bytes


class Oversized(NamedTuple):
    """A frame whose data, `length` bytes, exceed the limit and are being dropped."""

    stream_id: int
    type: int
    length: int


class FramingError(Exception):
    """The bytes are not ttrpc; where the next frame begins cannot be known."""


def encode(stream_id: int, frame_type: FrameType, flags: int, data: bytes) -> bytes:
    """The bytes of one frame.

    Raises StatusError RESOURCE_EXHAUSTED if `data` are longer than MAX_DATA.
    """
    if len(data) > MAX_DATA:
        raise too_long(len(data))
    return _HEADER.pack(len(data), stream_id, frame_type, flags) + data


def too_long(length: int, limit: int = MAX_DATA) -> StatusError:
    """The error for data of `length` bytes, the same for a sender and for a receiver."""
    return StatusError(
        Code.RESOURCE_EXHAUSTED, f"message of {length} bytes exceeds the limit of {limit} bytes for one message"
    )


class Decoder:
    """Bytes in, frames out: `feed` what arrived, then call `next` until it gives None."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._drop = 0
        """Bytes of an oversized frame that are still to come."""

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the stream, any number of them."""
        if self._drop:
            dropped = min(self._drop, len(data))
            self._drop -= dropped
            data = data[dropped:]
        self._buffer += data

    def next(self) -> Frame | Oversized | None:
        """The next frame, or None if more bytes are needed. Raises FramingError on what is not ttrpc."""
        buffer = self._buffer
        if len(buffer) < _HEADER.size:
            return None
        length, stream_id, frame_type, flags = _HEADER.unpack_from(buffer)
        if length & _RESERVED:
            raise FramingError(f"not a ttrpc frame: begins with {buffer[: _HEADER.size].hex(' ')}")
        if length > MAX_DATA:
            del buffer[: _HEADER.size]
            self._drop = length
            rest = bytes(buffer)
            buffer.clear()
            self.feed(rest)
            return Oversized(stream_id, frame_type, length)
        end = _HEADER.size + length
        if len(buffer) < end:
            return None
        with memoryview(buffer) as view:
            data = bytes(view[_HEADER.size : end])
        del buffer[:end]
        return Frame(stream_id, frame_type, flags, data)
