"""The frame codec: whatever way the bytes are cut, the same frames come out, and nothing is kept for ever."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttrpc import Code, StatusError
from ttrpc.frame import (
    MAX_DATA,
    NO_DATA,
    REMOTE_CLOSED,
    Decoder,
    Frame,
    FrameType,
    FramingError,
    Oversized,
    encode,
)

frames = st.builds(
    Frame,
    stream_id=st.integers(0, 0xFFFF_FFFF),
    type=st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    data=st.binary(max_size=64),
)


def encode_all(items: list[Frame]) -> bytes:
    return b"".join(encode(item.stream_id, FrameType(item.type), item.flags, item.data) for item in items)


def decode_all(pieces: list[bytes]) -> list[Frame | Oversized]:
    decoder = Decoder()
    items: list[Frame | Oversized] = []
    for piece in pieces:
        decoder.feed(piece)
        while (item := decoder.next()) is not None:
            items.append(item)
    return items


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_layout() -> None:
    """The bytes as the protocol's text has them."""
    assert encode(3, FrameType.DATA, REMOTE_CLOSED | NO_DATA, b"") == bytes.fromhex("00000000 00000003 03 05")
    assert encode(0x01020305, FrameType.REQUEST, 2, b"ab") == bytes.fromhex("00000002 01020305 01 02 6162")


@given(st.lists(frames, max_size=6))
def test_every_single_cut(items: list[Frame]) -> None:
    data = encode_all(items)
    for place in range(len(data) + 1):
        assert decode_all([data[:place], data[place:]]) == items


@given(st.lists(frames, max_size=12), st.lists(st.integers(0, 2000), max_size=40))
def test_any_cuts(items: list[Frame], places: list[int]) -> None:
    assert decode_all(cut(encode_all(items), places)) == items


@given(st.lists(frames, max_size=6))
def test_byte_by_byte(items: list[Frame]) -> None:
    data = encode_all(items)
    assert decode_all([data[at : at + 1] for at in range(len(data))]) == items


@settings(deadline=None, max_examples=30)
@given(frames, st.integers(MAX_DATA + 1, MAX_DATA + 3000), frames, st.lists(st.integers(0, 2**23), max_size=5))
def test_oversized_is_skipped(before: Frame, length: int, after: Frame, places: list[int]) -> None:
    header = length.to_bytes(4, "big") + bytes.fromhex("00000007 01 00")
    data = encode_all([before]) + header + bytes(length) + encode_all([after])
    assert decode_all(cut(data, places)) == [before, Oversized(7, 1, length), after]


def test_oversized_is_told_at_once_and_not_kept() -> None:
    decoder = Decoder()
    decoder.feed((0x00FF_FFFF).to_bytes(4, "big") + bytes.fromhex("00000001 01 00"))
    assert decoder.next() == Oversized(1, 1, 0x00FF_FFFF)
    for _ in range(0x00FF_FFFF // 65535):
        decoder.feed(bytes(65535))
        assert decoder.next() is None
        assert len(decoder._buffer) == 0
    decoder.feed(bytes(0x00FF_FFFF % 65535) + encode(3, FrameType.DATA, 0, b"x"))
    assert decoder.next() == Frame(3, FrameType.DATA, 0, b"x")


def test_largest_frame() -> None:
    data = encode(1, FrameType.DATA, 0, bytes(MAX_DATA))
    assert decode_all([data[:-1], data[-1:]]) == [Frame(1, FrameType.DATA, 0, bytes(MAX_DATA))]


def test_too_long_to_send() -> None:
    with pytest.raises(StatusError, match=str(MAX_DATA + 1)) as caught:
        encode(1, FrameType.REQUEST, 0, bytes(MAX_DATA + 1))
    assert caught.value.code is Code.RESOURCE_EXHAUSTED


@given(st.integers(1, 255), st.binary(min_size=9, max_size=40))
def test_first_byte_must_be_zero(first: int, rest: bytes) -> None:
    decoder = Decoder()
    decoder.feed(bytes([first]) + rest)
    with pytest.raises(FramingError, match=f"{first:02x}"):
        decoder.next()


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_garbage_gives_items_or_framing_error(data: bytes, places: list[int]) -> None:
    """Nothing else is ever raised, and what comes does not depend on the cuts."""

    def outcome(pieces: list[bytes]) -> str:
        try:
            return repr(decode_all(pieces))
        except FramingError as error:
            return repr(error)

    assert outcome(cut(data, places)) == outcome([data])


def test_http_is_refused() -> None:
    decoder = Decoder()
    decoder.feed(b"GET / HTTP/1.1\r\n")
    with pytest.raises(FramingError, match="47 45 54"):
        decoder.next()
