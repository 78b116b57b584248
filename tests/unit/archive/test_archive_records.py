"""The stream of records: what is written is read, and nothing else is taken for it. Pure."""

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import ArchiveError, CutError, MalformedError
from archive.errors import shown
from archive.records import (
    ATTRIBUTES_MOST,
    DATA_MOST,
    END,
    HEADER,
    HOLE,
    NAME_MOST,
    PATH_MOST,
    SIZE_MOST,
    Entry,
    Hole,
    Kind,
    Record,
    check_path,
    decode,
    encode,
    read,
)

_NAMES = st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b".", b"..") and not set(name) & {0, 47})
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(b"/".join)
_U32 = st.integers(0, 0xFFFF_FFFE)


@st.composite
def _entries(draw: Callable[[st.SearchStrategy[object]], object]) -> Entry:
    def drawn(strategy: st.SearchStrategy[object]) -> object:
        return draw(strategy)

    kind = draw(st.sampled_from(Kind))
    assert isinstance(kind, Kind)
    target = {Kind.LINK: _PATHS, Kind.SYMLINK: st.binary(min_size=1, max_size=50).filter(lambda text: 0 not in text)}
    return Entry(
        drawn(_PATHS),  # type: ignore[arg-type]
        kind,
        drawn(st.integers(0, 0o7777)),  # type: ignore[arg-type]
        drawn(_U32),  # type: ignore[arg-type]
        drawn(_U32),  # type: ignore[arg-type]
        drawn(st.integers(-(1 << 63), (1 << 63) - 1)),  # type: ignore[arg-type]
        drawn(st.integers(0, SIZE_MOST)) if kind is Kind.FILE else 0,  # type: ignore[arg-type]
        drawn(target.get(kind, st.just(b""))),  # type: ignore[arg-type]
        (drawn(st.integers(0, 0xFFF)), drawn(st.integers(0, 0xFFFFF))),  # type: ignore[arg-type]
        tuple(drawn(st.lists(st.tuples(_NAMES, st.binary(max_size=30)), max_size=3))),  # type: ignore[arg-type]
    )


@given(_entries())
def test_an_entry_comes_back(entry: Entry) -> None:
    record = encode(entry)
    assert HEADER.unpack_from(record) == (b"E", len(record) - HEADER.size)
    assert decode(record[HEADER.size :]) == entry


def _all(stream: bytes) -> list[Record]:
    """Read, with a copy of what holds good only for a while."""
    return [memoryview(bytes(each)) if isinstance(each, memoryview) else each for each in read(io.BytesIO(stream).read)]


_ROOT = Entry(b"", Kind.DIRECTORY)
_FILE = Entry(b"f", Kind.FILE, size=5)
_WHOLE = b"".join((encode(_ROOT), encode(_FILE), HEADER.pack(b"D", 2), b"ab", HEADER.pack(b"H", 8), HOLE.pack(3), END))


def test_a_stream_is_its_records() -> None:
    assert _all(_WHOLE) == [_ROOT, _FILE, memoryview(b"ab"), Hole(3)]


@given(st.integers(0, len(_WHOLE) - 1))
def test_one_that_is_cut_anywhere_says_so(at: int) -> None:
    with pytest.raises(CutError):
        _all(_WHOLE[:at])


@given(st.integers(0, len(_WHOLE) - 1), st.integers(1, 255))
def test_one_that_is_damaged_anywhere_is_an_error_of_ours_or_other_records(at: int, by: int) -> None:
    """Never another exception, and never memory without a bound."""
    damaged = bytearray(_WHOLE)
    damaged[at] ^= by
    try:
        _all(bytes(damaged))
    except ArchiveError:
        return


@given(st.binary(max_size=300))
def test_garbage_is_an_error_of_ours(garbage: bytes) -> None:
    with pytest.raises(ArchiveError):
        _all(garbage)


@pytest.mark.parametrize(
    "path",
    [b"..", b"a/..", b"a/../b", b"/etc", b"a//b", b"a/", b"./a", b"a\0b", b"x" * (NAME_MOST + 1), b"a/" * 2047 + b"ab"],
)
def test_what_is_no_path(path: bytes) -> None:
    with pytest.raises(MalformedError):
        check_path(path)
    for entry in (Entry(path, Kind.FILE), Entry(b"l", Kind.LINK, target=path)):
        with pytest.raises(MalformedError):
            decode(encode(entry)[HEADER.size :])


@pytest.mark.parametrize(
    "records",
    [
        (encode(_FILE),),  # nothing that was packed before it
        (encode(_ROOT), encode(_ROOT)),
        (encode(_ROOT), encode(_FILE), END),  # less than it says
        (encode(_ROOT), encode(_FILE), encode(_FILE)),
        (encode(_ROOT), encode(_FILE), HEADER.pack(b"D", 6), b"abcdef"),  # more
        (encode(_ROOT), encode(_FILE), HEADER.pack(b"H", 8), HOLE.pack(1 << 63)),
        (encode(_ROOT), HEADER.pack(b"D", 1), b"a"),  # of a directory
        (encode(_ROOT), HEADER.pack(b"D", DATA_MOST + 1)),
        (encode(_ROOT), HEADER.pack(b"D", 0)),
        (encode(_ROOT), HEADER.pack(b"E", 0xFFFF_FFFF)),  # endless
        (encode(_ROOT), HEADER.pack(b"Z", 1)),
        (encode(_ROOT), HEADER.pack(b"?", 0)),
        (END,),
    ],
)
def test_what_no_packer_sends(records: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedError):
        _all(b"".join(records))


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a" * PATH_MOST + b"a", Kind.FILE),
        Entry(b"a", Kind.FILE, uid=1 << 32),
        Entry(b"a", Kind.FILE, mtime_ns=1 << 63),
        Entry(b"a", Kind.FILE, xattrs=((b"user.a", bytes(ATTRIBUTES_MOST)),)),
    ],
)
def test_what_cannot_be_said(entry: Entry) -> None:
    with pytest.raises(MalformedError):
        encode(entry)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(b"a", Kind.FILE, uid=0xFFFF_FFFF),
        Entry(b"a", Kind.FILE, mode=0o10000),
        Entry(b"a", Kind.FIFO, size=1),
        Entry(b"a", Kind.BLOCK, device=(1 << 12, 0)),
        Entry(b"a", Kind.CHARACTER, device=(0, 1 << 20)),
        Entry(b"a", Kind.SYMLINK),
        Entry(b"a", Kind.SYMLINK, target=b"a\0b"),
    ],
)
def test_what_no_file_can_be(entry: Entry) -> None:
    with pytest.raises(MalformedError):
        decode(encode(entry)[HEADER.size :])


def test_paths_in_messages_are_harmless() -> None:
    assert shown(b"a\x1b[31m\n\xff\xe2\x80\xae") == "a\\x1b[31m\\x0a\\xff\\x202e"
    assert len(shown(b"x" * 5000)) == 200
