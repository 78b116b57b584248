"""Frames come out as they went in, however the bytes were cut on the way."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from vminitd.frames import END, HEADER, FrameReader


def encode(pieces: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(piece)) + piece for piece in pieces) + bytes(4)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_any_cut_gives_the_same_bytes(pieces: list[bytes], cuts: list[int]) -> None:
    stream = encode(pieces)
    reader, got, at, turn = FrameReader(), bytearray(), 0, 0
    while at < len(stream):
        assert not reader.ended
        size = cuts[turn % len(cuts)]
        for data in reader.feed(memoryview(stream)[at : at + size]):
            got += data
        at, turn = at + size, turn + 1
    assert reader.ended
    assert bytes(got) == b"".join(pieces)


def test_what_follows_the_end_is_ignored() -> None:
    reader = FrameReader()
    assert [bytes(data) for data in reader.feed(memoryview(encode([b"a"]) + encode([b"b"])))] == [b"a"]
    assert reader.ended


def test_the_frames_are_those_of_the_protocol() -> None:
    assert END == b"\0\0\0\0"
    assert HEADER.pack(0x01020304) == b"\x01\x02\x03\x04"
