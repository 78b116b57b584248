"""The frames of a stdio connection, however they are cut on the way."""

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from api.frames import BROKEN, END, FrameReader, header

_PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


def _stream(pieces: list[bytes]) -> bytes:
    return b"".join(header(len(piece)) + piece for piece in pieces)


def _feed(reader: FrameReader, chunks: list[bytes]) -> bytes:
    return b"".join(bytes(piece) for chunk in chunks for piece in reader.feed(memoryview(chunk)))


def test_the_header_is_big_endian() -> None:
    assert header(0x01020304) == b"\1\2\3\4"
    assert header(0) == END
    assert header(2**32 - 1) == struct.pack(">I", 2**32 - 1)


@given(_PIECES, st.binary(max_size=20))
def test_a_stream_cut_at_every_byte(pieces: list[bytes], after: bytes) -> None:
    stream = _stream(pieces) + END + after
    for at in range(len(stream) + 1):
        reader = FrameReader()
        assert _feed(reader, [stream[:at], stream[at:]]) == b"".join(pieces)
        assert reader.ended
    reader = FrameReader()
    assert _feed(reader, [stream[at : at + 1] for at in range(len(stream))]) == b"".join(pieces)
    assert reader.ended


@given(_PIECES, st.lists(st.integers(0, 300), max_size=6))
def test_a_stream_cut_anywhere(pieces: list[bytes], cuts: list[int]) -> None:
    stream = _stream(pieces) + END
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    reader = FrameReader()
    chunks = [stream[low:high] for low, high in itertools.pairwise(edges)]
    assert _feed(reader, chunks) == b"".join(pieces)
    assert reader.ended


@given(_PIECES, st.data())
def test_a_stream_that_breaks_off_has_not_ended(pieces: list[bytes], data: st.DataObject) -> None:
    stream = _stream(pieces) + END
    cut = stream[: data.draw(st.integers(0, len(stream) - 1))]
    reader = FrameReader()
    got = _feed(reader, [cut])
    assert b"".join(pieces).startswith(got)
    assert not reader.ended


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    reader = FrameReader()
    got = _feed(reader, chunks)
    assert len(got) <= sum(map(len, chunks))
    if reader.ended:
        assert _feed(reader, [b"more"]) == b""


def test_data_is_not_copied() -> None:
    received = bytearray(header(5) + b"first")
    (piece,) = FrameReader().feed(memoryview(received))
    received[4:] = b"FIRST"
    assert bytes(piece) == b"FIRST"


def test_a_frame_as_large_as_can_be_needs_no_memory() -> None:
    reader = FrameReader()
    assert _feed(reader, [header(2**32 - 2), b"abc", b"def"]) == b"abcdef"
    assert not reader.ended


@given(_PIECES, st.integers(0, 3))
def test_a_stream_that_was_cut_short_has_ended_and_is_not_whole(pieces: list[bytes], cut: int) -> None:
    stream = _stream(pieces) + BROKEN + b"after"
    reader = FrameReader()
    at = len(stream) - len(b"after") - cut
    assert _feed(reader, [stream[:at], stream[at:]]) == b"".join(pieces)
    assert reader.ended
    assert reader.broken
    assert not reader.whole


def test_only_a_stream_with_its_end_is_whole() -> None:
    reader = FrameReader()
    _feed(reader, [header(1) + b"a"])
    assert not reader.whole
    _feed(reader, [END])
    assert reader.whole
