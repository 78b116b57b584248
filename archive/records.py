"""The stream: records of one byte of kind, a length and so many bytes.

    E   an entry: a fixed struct, then path, target of a link, extended attributes
    D   the next bytes of the file that the last entry is
    H   a hole in it: so many bytes of zeros that need no place (u64)
    Z   the end, without which a stream is cut short

All numbers are big-endian. The data and holes of a file are as long together as its entry says.
Paths are relative to what was packed, which is the entry with the empty path, the first; an entry's
directory comes before it. What reads a stream believes nothing of it: lengths are bounded, and a path's
parts are names, never empty, `.`, `..` or with a slash or NUL in them.
"""

import enum
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from archive.errors import CutError, MalformedError, shown

HEADER = struct.Struct(">cI")
HOLE = struct.Struct(">Q")
# Kind, mode, uid, gid, size, mtime in ns, major, minor, lengths of path, target and attributes.
_ENTRY = struct.Struct(">BHIIQqIIHHI")
_ATTRIBUTE = struct.Struct(">BI")

PATH_MOST = 4095
"""Bytes of a path, as for the kernel (PATH_MAX)."""
NAME_MOST = 255
DATA_MOST = 1 << 20
# As many attributes as ext4 can keep outside of an inode, and then some.
ATTRIBUTES_MOST = 256 << 10
_ENTRY_MOST = _ENTRY.size + 2 * PATH_MOST + ATTRIBUTES_MOST
# What means "leave it as it is" to chown(2).
_NOBODY = 0xFFFF_FFFF
# Linux, include/linux/kdev_t.h: what a number of a device has room for, and a tar header, too.
_MAJOR_MOST = (1 << 12) - 1
_MINOR_MOST = (1 << 20) - 1
SIZE_MOST = (1 << 63) - 1
END = HEADER.pack(b"Z", 0)


class Kind(enum.IntEnum):
    """What an entry is. A LINK is one more name of an earlier entry of the stream, its target."""

    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    LINK = 4
    FIFO = 5
    CHARACTER = 6
    BLOCK = 7


class Entry(NamedTuple):
    """One file of any kind. `mode` has no file type in it; `size` is of a FILE's content; `device` is major, minor."""

    path: bytes
    kind: Kind
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Hole(NamedTuple):
    size: int


Record = Entry | Hole | memoryview
"""What comes of a stream, but for its end; a view holds good until the next is asked for."""


def encode(entry: Entry) -> bytes:
    """An entry's record. Raises MalformedError for what cannot be said."""
    attributes = b"".join(
        _ATTRIBUTE.pack(len(name), len(value)) + name + value for name, value in entry.xattrs if len(name) <= NAME_MOST
    )
    if len(entry.path) > PATH_MOST or len(entry.target) > PATH_MOST or len(attributes) > ATTRIBUTES_MOST:
        raise MalformedError(f"{shown(entry.path)}: its path, its target or its attributes are too long to be copied")
    try:
        body = _body(entry, len(attributes))
    except struct.error:
        raise MalformedError(f"{shown(entry.path)}: a number of it (owner, time, device) is too great") from None
    size = len(body) + len(entry.path) + len(entry.target) + len(attributes)
    return b"".join((HEADER.pack(b"E", size), body, entry.path, entry.target, attributes))


def _body(entry: Entry, attributes: int) -> bytes:
    return _ENTRY.pack(
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime_ns,
        *entry.device,
        len(entry.path),
        len(entry.target),
        attributes,
    )


def decode(body: bytes) -> Entry:
    """An entry of its record's bytes. Raises MalformedError."""
    if len(body) < _ENTRY.size:
        raise MalformedError("an entry is too short")
    number, mode, uid, gid, size, mtime_ns, major, minor, *lengths = _ENTRY.unpack_from(body)
    ends = [_ENTRY.size]
    for length in lengths:
        ends.append(ends[-1] + length)
    if ends[-1] != len(body):
        raise MalformedError("an entry is not as long as it says")
    path, target, attributes = (body[begin:end] for begin, end in itertools.pairwise(ends))
    try:
        kind = Kind(number)
    except ValueError:
        raise MalformedError(f"{shown(path)}: there are no files of the kind {number}") from None
    check_path(path)
    if kind is Kind.LINK:
        check_path(target)
    elif kind is Kind.SYMLINK and (not target or b"\0" in target or len(target) > PATH_MOST):
        raise MalformedError(f"{shown(path)}: a symbolic link to {shown(target)!r}")
    if _NOBODY in (uid, gid):
        raise MalformedError(f"{shown(path)}: there is no owner {_NOBODY}")
    if major > _MAJOR_MOST or minor > _MINOR_MOST:
        raise MalformedError(f"{shown(path)}: there is no device {major}:{minor}")
    if mode > 0o7777 or size > SIZE_MOST or (size and kind is not Kind.FILE):
        raise MalformedError(f"{shown(path)}: mode {mode:o}, size {size}")
    return Entry(path, kind, mode, uid, gid, mtime_ns, size, target, (major, minor), _attributes(path, attributes))


def _attributes(path: bytes, packed: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(packed):
        if len(packed) - at < _ATTRIBUTE.size:
            raise MalformedError(f"{shown(path)}: half an attribute")
        name_length, length = _ATTRIBUTE.unpack_from(packed, at)
        begin = at + _ATTRIBUTE.size
        at = begin + name_length + length
        name = packed[begin : begin + name_length]
        if at > len(packed) or not name or b"\0" in name:
            raise MalformedError(f"{shown(path)}: half an attribute, or one without a name")
        found.append((name, packed[begin + name_length : at]))
    return tuple(found)


def check_path(path: bytes) -> None:
    """Raises MalformedError unless every part of it is a name; the empty path is what was packed itself."""
    if not path:
        return
    if len(path) > PATH_MOST or b"\0" in path:
        raise MalformedError(f"{shown(path)}: no path can be like that")
    for name in path.split(b"/"):
        if name in (b"", b".", b"..") or len(name) > NAME_MOST:
            raise MalformedError(f"{shown(path)}: {shown(name)!r} is no name")


def read(source: Callable[[int], bytes]) -> Iterator[Record]:
    """The records of a stream, to its end. `source` gives so many bytes, fewer only where there are no more.

    Raises MalformedError, also for a file that has more data than it says, or less; CutError; what `source` does.
    """
    left = 0
    path = b""
    first = True
    while True:
        header = source(HEADER.size)
        if len(header) < HEADER.size:
            raise CutError
        what, length = HEADER.unpack(header)
        if what == b"D" and 0 < length <= DATA_MOST:
            data = _exactly(source, length)
            left -= length
            record: Record = memoryview(data)
        elif what == b"H" and length == HOLE.size:
            (size,) = HOLE.unpack(_exactly(source, length))
            left -= size
            record = Hole(size)
        elif what == b"E" and length <= _ENTRY_MOST:
            record = entry = decode(_exactly(source, length))
            if left:
                raise MalformedError(f"{shown(path)} has less data than it says")
            if bool(entry.path) is first:
                raise MalformedError("what was packed comes first, and once")
            path, left, first = entry.path, entry.size, False
        elif what == b"Z" and length == 0:
            if left or first:
                raise MalformedError(f"{shown(path)} has less data than it says" if left else "there is nothing in it")
            return
        else:
            raise MalformedError(f"a record {what!r} of {length} bytes")
        if left < 0:
            raise MalformedError(f"{shown(path)} has more data than it says")
        yield record


def _exactly(source: Callable[[int], bytes], size: int) -> bytes:
    data = source(size)
    if len(data) < size:
        raise CutError
    return data


def entry_of(path: bytes, status: os.stat_result, kind: Kind) -> Entry:
    """What stat(2) says, as an entry without links, devices and attributes. Pure."""
    return Entry(
        path,
        kind,
        status.st_mode & 0o7777,
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_size if kind is Kind.FILE else 0,
    )
