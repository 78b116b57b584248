"""A guest that says of its changes what cannot be: each is refused, with one clear line."""

import os
import stat
import struct
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import changes_pb2 as pb
from api.inode import FACTS
from shim.changes import listing
from shim.changes.listing import RACY, Item, Listing
from shim.errors import GuestError

_IMAGE = 1 << 20
_BEGAN_NS = 10_000_000_000


_FACTS = ("depth", "mode", "uid", "gid", "rdev", "size", "mtime_ns", "ctime_ns", "inode", "links")
_FILE = {"mode": stat.S_IFREG | 0o644, "inode": 7, "links": 1}


def entry(depth: int, name: bytes, **said: object) -> pb.Entry:
    """A regular file, unless it is said otherwise."""
    facts = {**dict.fromkeys(_FACTS, 0), **_FILE, "depth": depth}
    made = pb.Entry(name=name)
    for key, value in said.items():
        if key in facts:
            facts[key] = cast(int, value)
        elif key == "extents":
            made.extents = struct.pack(f"<{len(cast(list[int], value))}Q", *cast(list[int], value))
        elif isinstance(value, list):
            getattr(made, key).extend(value)
        else:
            setattr(made, key, value)
    made.facts = FACTS.pack(*facts.values())
    return made


def folder(depth: int, name: bytes, **said: object) -> pb.Entry:
    return entry(depth, name, mode=stat.S_IFDIR | 0o755, **said)


def read(*entries: pb.Entry, last: bool = True, image_bytes: int = _IMAGE) -> list[Item]:
    """What a listing of one page, which begins with the directory itself, becomes."""
    page = pb.ListResponse(entries=[folder(0, b""), *entries], last=last, began_ns=_BEGAN_NS)
    return Listing(image_bytes).page(page)


def xattr(name: bytes, value: bytes = b"") -> pb.Xattr:
    return pb.Xattr(name=name, value=value)


_REFUSED = {
    "a name with a slash": ([entry(1, b"a/b")], "no name"),
    "a name that leads up": ([folder(1, b"..")], "no name"),
    "the directory itself once more": ([folder(1, b".")], "no name"),
    "no name": ([entry(1, b"")], "no name"),
    "a zero": ([entry(1, b"a\0b")], "no name"),
    "a long name": ([entry(1, b"n" * 256)], "no name"),
    "a name twice": ([entry(1, b"a"), entry(1, b"a")], "does not come after"),
    "a name twice, later": ([entry(1, b"a"), entry(1, b"b"), entry(1, b"a")], "does not come after"),
    "a name twice, below": ([folder(1, b"a"), entry(2, b"b"), folder(1, b"a")], "does not come after"),
    "a second root": ([folder(0, b"")], "depth 0"),
    "no facts": ([pb.Entry(name=b"a")], "0 bytes of facts"),
    "many facts": ([pb.Entry(name=b"a", facts=bytes(61))], "61 bytes of facts"),
    "a child of a file": ([entry(1, b"a"), entry(2, b"b")], "depth 2"),
    "a child of nothing": ([entry(3, b"a")], "depth 3"),
    "a depth that is too deep": ([folder(n, b"a") for n in range(1, 4098)], "deeper than 4096"),
    "no type": ([entry(1, b"a", mode=0o644)], "mode"),
    "a strange type": ([entry(1, b"a", mode=0o130644)], "mode"),
    "a strange mode": ([entry(1, b"a", mode=1 << 20 | stat.S_IFREG)], "mode"),
    "nobody's": ([entry(1, b"a", uid=0xFFFFFFFF)], "nobody"),
    "of no group": ([entry(1, b"a", gid=0xFFFFFFFF)], "nobody"),
    "no names at all": ([entry(1, b"a", links=0)], "0 names"),
    "an endless file": ([entry(1, b"a", size=1 << 62)], "bytes"),
    "a FIFO with a size": ([entry(1, b"a", mode=stat.S_IFIFO, size=1)], "bytes"),
    "a device beyond all numbers": ([entry(1, b"a", mode=stat.S_IFCHR, rdev=1 << 63)], "device"),
    "a link to nothing": ([entry(1, b"a", mode=stat.S_IFLNK)], "link to 0"),
    "a long link": ([entry(1, b"a", mode=stat.S_IFLNK, target=b"x" * 4096)], "link to 4096"),
    "a link with a zero": ([entry(1, b"a", mode=stat.S_IFLNK, target=b"x\0")], "link to"),
    "a file that is a link": ([entry(1, b"a", target=b"x")], "link to"),
    "an attribute without a name": ([entry(1, b"a", xattrs=[xattr(b"")])], "attribute"),
    "an attribute with a zero": ([entry(1, b"a", xattrs=[xattr(b"user.\0")])], "attribute"),
    "an attribute with a long name": ([entry(1, b"a", xattrs=[xattr(b"user." + b"x" * 251)])], "attribute"),
    "an attribute twice": ([entry(1, b"a", xattrs=[xattr(b"user.a"), xattr(b"user.a")])], "attribute"),
    "an extent beyond the image": ([entry(1, b"a", size=9, extents=[0, _IMAGE, 4096])], "of a disk of"),
    "an extent over its end": ([entry(1, b"a", size=9, extents=[0, _IMAGE - 1024, 4096])], "of a disk of"),
    "an extent that wraps": ([entry(1, b"a", size=9, extents=[0, 2**64 - 1024, 1024])], "of a disk of"),
    "an extent beyond the file": ([entry(1, b"a", size=9, extents=[4096, 0, 4096])], "cannot have"),
    "an empty extent": ([entry(1, b"a", size=9, extents=[0, 0, 0])], "cannot have"),
    "half a block": ([entry(1, b"a", size=9, extents=[0, 0, 512])], "cannot have"),
    "extents that overlap": ([entry(1, b"a", size=9999, extents=[0, 0, 4096, 2048, 8192, 4096])], "cannot have"),
    "extents backwards": ([entry(1, b"a", size=9999, extents=[4096, 0, 4096, 0, 8192, 4096])], "cannot have"),
    "half an extent": ([entry(1, b"a", size=9, extents=[0, 0])], "extents"),
    "more data than there can be": (
        [entry(1, b"a%d" % n, size=_IMAGE // 2, extents=[0, 0, _IMAGE // 2]) for n in range(3)],
        "more than the disk",
    ),
    "a directory with data": ([folder(1, b"a", extents=[0, 0, 1024])], "has data"),
    "a link with data": ([entry(1, b"a", mode=stat.S_IFLNK, target=b"x", inline=b"x")], "has data"),
    "data within the inode, and without": ([entry(1, b"a", size=1, inline=b"x", extents=[0, 0, 1024])], "within"),
    "data within the inode that are too short": ([entry(1, b"a", size=2, inline=b"x")], "within"),
    "one file of two types": (
        [entry(1, b"a", links=2), entry(1, b"b", links=2, mode=stat.S_IFIFO | 0o644)],
        "one file and differ",
    ),
    "one file of two sizes": ([entry(1, b"a", links=2), entry(1, b"b", links=2, size=1)], "one file and differ"),
    "more without an end": ([entry(1, b"a", size=9999, more=True)], "has no end"),
    "more of another": (
        [entry(1, b"a", size=9999, extents=[0, 0, 4096], more=True), entry(1, b"b", size=9999)],
        "is missing",
    ),
    "more, and the end": ([entry(1, b"a", size=9999, extents=[0, 0, 4096], more=True)], "too early"),
}


@pytest.mark.parametrize(("entries", "why"), _REFUSED.values(), ids=_REFUSED)
def test_what_cannot_be_is_refused(entries: list[pb.Entry], why: str) -> None:
    with pytest.raises(GuestError, match=why) as refused:
        read(*entries)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 1000


def test_a_message_is_no_longer_than_anybody_reads() -> None:
    way = [folder(depth, b"\xff" * 255) for depth in range(1, 1001)]
    with pytest.raises(GuestError, match="cannot have an extent") as refused:
        read(*way, entry(1001, b"a", size=1, extents=[0, 0, 1]))
    assert len(refused.value.message) < 1000


def test_it_begins_with_a_directory() -> None:
    for first in (entry(0, b""), folder(1, b""), folder(0, b"a"), entry(1, b"a")):
        with pytest.raises(GuestError, match="does not begin"):
            Listing(_IMAGE).page(pb.ListResponse(entries=[first], last=True))
    with pytest.raises(GuestError, match="too early"):
        Listing(_IMAGE).page(pb.ListResponse(last=True))


def test_it_has_an_end() -> None:
    whole = Listing(_IMAGE)
    whole.page(pb.ListResponse(entries=[folder(0, b"")]))
    with pytest.raises(GuestError, match="no end"):
        whole.page(pb.ListResponse())
    again = Listing(_IMAGE)
    page = pb.ListResponse(entries=[folder(0, b""), entry(1, b"a")])
    again.page(page)
    with pytest.raises(GuestError, match="depth 0"):
        again.page(page)


def test_no_more_names_than_an_image_has_room_for() -> None:
    count = 1 << 16
    with pytest.raises(GuestError, match=f"more than {count} entries"):
        read(*(entry(1, b"%08d" % n) for n in range(count)))


def test_no_more_files_of_several_names_than_can_be_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_LINKED_BYTES", 4500)
    pairs = [entry(1, b"%03d" % n, links=2, inode=n // 2) for n in range(100)]
    assert len(read(*pairs)) == 101  # each is forgotten with its last name
    with pytest.raises(GuestError, match="the 11 files with further names"):
        read(*(entry(1, b"%03d" % n, links=2, inode=n) for n in range(100)))


def test_far_down_each_of_them_takes_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name there is a tuple of all that lead to it: half a million of those were gigabytes."""
    monkeypatch.setattr(listing, "_MOST_LINKED_BYTES", 40_000)
    way = [folder(depth, b"d") for depth in range(1, 1001)]
    files = [entry(1001, b"f%d" % n, links=2, inode=n) for n in range(9)]
    assert len(read(*way, *files[:4])) == 1005
    with pytest.raises(GuestError, match="files with further names"):
        read(*way, *files)


@pytest.mark.parametrize(
    "said",
    [
        {"inline": b"x" * 200_000, "size": 200_000},
        {"mode": stat.S_IFIFO, "xattrs": [xattr(b"trusted.a", b"x" * 200_000)]},
    ],
)
def test_what_is_kept_beside_data_has_room_in_the_image_too(said: dict[str, object]) -> None:
    """The host's file system may take far more of it than a guest's ext4."""
    assert len(read(*(entry(1, b"%d" % n, **said) for n in range(5)))) == 6
    with pytest.raises(GuestError, match="more than the disk"):
        read(*(entry(1, b"%d" % n, **said) for n in range(6)))


def test_single_kibibytes_far_apart_take_no_more_of_the_host_than_the_image() -> None:
    """There each takes a page. Side by side, as in a file system of such blocks, four of them share one."""
    apart = [number for at in range(_IMAGE // 1024) for number in (at * 4096, at * 1024, 1024)]
    with pytest.raises(GuestError, match="more than the disk"):
        read(entry(1, b"a", size=1 << 40, extents=apart))
    beside = [number for at in range(_IMAGE // 1024) for number in (at * 1024, at * 1024 ^ 1024, 1024)]
    assert len(read(entry(1, b"a", size=_IMAGE, extents=beside))) == 2


def test_no_more_extents_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_MOST_EXTENTS", 2)
    extents = [number for at in range(0, 3 * 4096, 4096) for number in (at, at, 1024)]
    with pytest.raises(GuestError, match="extents"):
        read(entry(1, b"a", size=99999, extents=extents))


def test_a_tree_comes_through() -> None:
    device = os.makedev(4, 64)
    items = read(
        folder(1, b"a", opaque=True),
        entry(2, b"same", links=2, inode=9),
        entry(2, b"\xff", size=5000, extents=[0, 8192, 4096], more=True),
        entry(2, b"\xff", size=5000, extents=[4096, 0, 4096]),
        folder(1, b"b"),
        entry(2, b"again", links=2, inode=9),
        entry(1, b"c", mode=stat.S_IFCHR | 0o600, rdev=device, opaque=True),
        entry(1, b"gone", mode=stat.S_IFCHR),
        entry(1, b"z", mode=stat.S_IFLNK | 0o777, target=b"../../etc"),
    )
    names = [item.names for item in items]
    assert names == sorted(names)
    assert names[:3] == [(), (b"a",), (b"a", b"same")]
    assert list(items[3].places()) == [(0, 8192, 4096), (4096, 0, 904)]
    assert [item.opaque for item in items if item.opaque] == [True]
    assert items[5].same_as == (b"a", b"same")
    assert items[6].rdev == device
    assert [item.is_whiteout for item in items] == [False] * 7 + [True, False]


def test_whiteouts_of_one_inode_are_none_of_the_containers() -> None:
    items = read(*(entry(1, b"%d" % n, mode=stat.S_IFCHR, links=9) for n in range(4)))
    assert {item.same_as for item in items} == {None}


def test_attributes_that_are_taken_over() -> None:
    names = [b"user.a", b"trusted.b", b"trusted.overlay.opaque", b"trusted.overlay.origin", b"security.selinux"]
    names += [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default", b"system.x", b"os2.a"]
    said = [xattr(name, b"v") for name in names]
    file, folder_, link = read(
        entry(1, b"a", xattrs=said),
        folder(1, b"b", xattrs=said),
        entry(1, b"c", mode=stat.S_IFLNK, target=b"x", xattrs=said),
    )[1:]
    assert set(file.xattrs) == {b"user.a", b"trusted.b", b"security.capability", b"system.posix_acl_access"}
    assert set(folder_.xattrs) == {*file.xattrs, b"system.posix_acl_default"}
    assert set(link.xattrs) == {b"trusted.b", b"security.capability"}


def test_what_may_change_in_the_moment_that_it_is_listed_is_not_relied_upon() -> None:
    second = 1_000_000_000
    ages = [(2 * second, False), (second, True), (0, True), (-second, True)]
    for age_ns, racy in ages:
        assert (read(entry(1, b"a", ctime_ns=_BEGAN_NS - age_ns))[1].digest == RACY) == racy


@given(st.sampled_from(_FACTS[2:-1]), st.integers(1, 1000))
def test_every_fact_makes_another_file(fact: str, by: int) -> None:
    assert read(entry(1, b"a"))[1].digest != read(entry(1, b"a", **{fact: _FILE.get(fact, 0) ^ by}))[1].digest
    assert read(entry(1, b"a"))[1].digest == read(folder(1, b"Z"), entry(2, b"a"))[2].digest


_BYTES = st.binary(max_size=6)
_NUMBER = st.one_of(st.integers(0, 5), st.sampled_from([1024, 4096, 2**32 - 1]))


@given(
    st.lists(
        st.builds(
            entry,
            depth=st.integers(0, 4),
            name=_BYTES,
            mode=st.one_of(st.sampled_from([0o40755, 0o100644, 0o120777, 0o20000]), st.integers(0, 2**32 - 1)),
            uid=_NUMBER,
            size=st.one_of(_NUMBER, st.integers(0, 2**64 - 1)),
            links=_NUMBER,
            inode=_NUMBER,
            target=_BYTES,
            extents=st.lists(_NUMBER, max_size=6),
            inline=_BYTES,
            more=st.booleans(),
        ),
        max_size=8,
    )
)
def test_whatever_is_said_it_is_a_tree_or_refused(entries: list[pb.Entry]) -> None:
    try:
        items = read(*entries)
    except GuestError:
        return
    names = [item.names for item in items]
    assert names == sorted(set(names))
    directories = {item.names for item in items if item.is_directory}
    assert all(each[:-1] in directories for each in names[1:])
    assert all(b"/" not in part and part not in (b"", b".", b"..") for each in names for part in each)
    for item in items:
        assert all(place + length <= _IMAGE and offset + length <= item.size for offset, place, length in item.places())
