"""What a guest says its upper directory holds, each word of it checked before it is believed. Pure.

A guest may be whatever its container has made of it. What gets through here is a tree that an ext4 of the image's size
could hold: names that stay in their directories, each once; data that lie within the image, and nowhere twice; counts
that the image has room for. What it says besides can be wrong, and harms nobody but the snapshot of its own container.
"""

import os
import stat
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NoReturn

from api import changes_pb2
from api.inode import EXTENT, FACTS
from shim import untrusted
from shim.changes.beneath import Names
from shim.errors import GuestError
from ttrpc import Code

_NAME_BYTES: Final = 255
_TARGET_BYTES: Final = 4095
_XATTR_NAME_BYTES: Final = 255
# What the host's file system gives a file room by.
_PAGE: Final = 4096
# No path of so many names can be given to any system call; a tree that is deeper was made step by step.
MOST_DEPTH: Final = 4096
# ext4's own limit, with blocks of 4 KiB.
_MOST_SIZE: Final = 1 << 44
# ext4's smallest block. All extents are of whole ones.
_BLOCK: Final = 1024
# Of one file: 25 MiB of memory.
_MOST_EXTENTS: Final = 1 << 20
# An image has an inode for each 16 KiB, unless somebody has made it otherwise, and names take room, too.
_BYTES_PER_ENTRY: Final = 4096
_FEW_ENTRIES: Final = 1 << 16
# Memory for files with further names to come: of half a million that are where files usually are. One of them takes so
# much without its names, each of which is a word more: a path can have thousands.
_MOST_LINKED_BYTES: Final = 256 << 20
_LINKED_BYTES: Final = 400
_WORD: Final = 8
_MAJOR_LIMIT: Final = 1 << 12
_MINOR_LIMIT: Final = 1 << 20
_NO_ID: Final = 0xFFFFFFFF
_TYPES: Final = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)
_ACL: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
# At the front of FACTS, and no fact of the inode.
_DEPTH_BYTES: Final = 4
_SECOND_NS: Final = 1_000_000_000
# Characters of a path in a message.
_SHOWN: Final = 300

# What was applied with this digest is applied again: it may have changed in the very moment after it was listed.
RACY: Final = bytes(16)


@dataclass(slots=True)
class Item:
    """A name that the guest has listed, with its inode. `mode` is type and permissions, sizes are in bytes."""

    names: Names
    # Its numbers as the guest has sent them.
    packed: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    links: int
    target: bytes
    xattrs: dict[bytes, bytes]
    opaque: bool
    # A whiteout that hides nothing.
    needless: bool
    # The guest takes it as known: it has not told all of it.
    brief: bool
    inline: bytes
    # Offset in the file, offset in the image, length; and again. None reaches beyond the file's end.
    extents: "array[int]" = field(default_factory=lambda: array("Q"))
    # The first name of the same file, if this is a further one.
    same_as: Names | None = None
    # Of all that says whether it has changed; RACY where that cannot be told.
    digest: bytes = RACY

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_whiteout(self) -> bool:
        """It stands for nothing: what layers below have at its place is gone."""
        return stat.S_ISCHR(self.mode) and not self.rdev

    def places(self) -> Iterator[tuple[int, int, int]]:
        """The extents, one by one."""
        numbers = iter(self.extents)
        return zip(numbers, numbers, numbers, strict=True)

    def facts(self) -> bytes:
        """What all names of one file have in common, and what is not the same any more once it has changed."""
        return self.packed[_DEPTH_BYTES:] + self.target


@dataclass(slots=True)
class _Linked:
    first: Names
    # A digest of its facts.
    digest: bytes
    seen: int = 1

    @property
    def memory(self) -> int:
        """About how many bytes it takes."""
        return _LINKED_BYTES + _WORD * len(self.first) + len(self.first[-1])


class Listing:
    """One listing, page after page, of a disk whose image has `image_bytes`."""

    def __init__(self, image_bytes: int) -> None:
        self._image_bytes = image_bytes
        self._most_entries = max(_FEW_ENTRIES, image_bytes // _BYTES_PER_ENTRY)
        self._entries = 0
        self._data_bytes = 0
        # What the data take on the host, where room is given by whole pages; and all that is kept beside data.
        self._room = 0
        self._beside = 0
        self._began_ns: int | None = None
        # The directory that entries are in now, if they are not further up, and the last name in each on the way.
        self._directory: Names = ()
        self._last: list[bytes] = []
        self._linked: dict[int, _Linked] = {}
        self._linked_bytes = 0
        # Of the entry whose extents go on in the next one.
        self._unfinished: Item | None = None
        self._ended = False

    @property
    def began_ns(self) -> int:
        """When it began, by the guest's clock; 0 before the first page."""
        return self._began_ns or 0

    @property
    def entries(self) -> int:
        """How many there were by now."""
        return self._entries

    def page(self, page: changes_pb2.ListResponse) -> list[Item]:
        """The page's items, in the order of their names. Raises GuestError for what cannot be."""
        if self._began_ns is None:
            self._began_ns = page.began_ns
        if self._ended or (not page.last and not page.entries):
            _refuse("it has no end")
        items = [item for entry in page.entries if (item := self._item(entry)) is not None]
        if page.last:
            self._ended = True
            if self._unfinished is not None or not self._entries:
                _refuse("it ends too early")
        return items

    def _item(self, entry: changes_pb2.Entry) -> Item | None:
        """None for one that goes on in the next."""
        if self._unfinished is not None:
            item = self._go_on(self._unfinished, entry)
        else:
            self._entries += 1
            if self._entries > self._most_entries:
                _refuse(f"it has more than {self._most_entries} entries")
            item = _read(entry, self._place(entry))
            self._connect(item)
            self._add_beside(item, entry)
        if stat.S_ISREG(item.mode):
            self._add_data(item, entry)
        elif entry.more or entry.extents or entry.inline:
            _refuse(f"{shown(item.names)} is no regular file and has data")
        self._unfinished = item if entry.more else None
        if entry.more:
            if not entry.extents:
                _refuse(f"{shown(item.names)} has no end")
            return None
        return item

    def _place(self, entry: changes_pb2.Entry) -> Names:
        """Where the entry is; the walk is there then."""
        name = bytes(entry.name)
        if len(entry.facts) != FACTS.size:
            _refuse(f"{shown((name[: _NAME_BYTES + 1],))} has {len(entry.facts)} bytes of facts")
        depth, mode = FACTS.unpack(entry.facts)[:2]
        if self._entries == 1:
            if depth or name or not stat.S_ISDIR(mode):
                _refuse("it does not begin with the directory itself")
            return ()
        if not 0 < depth <= len(self._directory) + 1:
            _refuse(f"an entry of depth {depth} follows {shown(self._directory)}")
        if depth > MOST_DEPTH:
            _refuse(f"it is deeper than {MOST_DEPTH} directories")
        if not name or len(name) > _NAME_BYTES or name in (b".", b"..") or b"/" in name or b"\0" in name:
            _refuse(f"{shown((name[: _NAME_BYTES + 1],))} is no name")
        del self._last[depth:]
        if len(self._last) == depth:
            if name <= self._last[-1]:
                _refuse(f"{shown((name,))} does not come after {shown((self._last[-1],))}")
            self._last[-1] = name
        else:
            self._last.append(name)
        names = (*self._directory[: depth - 1], name)
        self._directory = names if stat.S_ISDIR(mode) else names[:-1]
        return names

    def _connect(self, item: Item) -> None:
        """Say what else is the same file, and what tells whether it is unchanged."""
        assert self._began_ns is not None
        digest = blake2b(item.facts(), digest_size=16).digest()
        if item.ctime_ns < self._began_ns - _SECOND_NS:
            item.digest = digest
        # Overlayfs gives all its whiteouts one inode, which is none of the container's doing.
        if item.links == 1 or item.is_directory or item.is_whiteout:
            return
        linked = self._linked.get(item.inode)
        if linked is None:
            linked = self._linked[item.inode] = _Linked(item.names, digest)
            self._linked_bytes += linked.memory
            if self._linked_bytes > _MOST_LINKED_BYTES:
                _refuse(f"the {len(self._linked)} files with further names are more than can be remembered")
            return
        if linked.digest != digest:
            _refuse(f"{shown(item.names)} and {shown(linked.first)} are one file and differ")
        item.same_as = linked.first
        linked.seen += 1
        if linked.seen == item.links:
            del self._linked[item.inode]
            self._linked_bytes -= linked.memory

    def _go_on(self, item: Item, entry: changes_pb2.Entry) -> Item:
        if entry.name != item.names[-1] or entry.facts != item.packed:
            _refuse(f"the rest of {shown(item.names)} is missing")
        return item

    def _add_data(self, item: Item, entry: changes_pb2.Entry) -> None:
        names = item.names
        if entry.inline and (entry.extents or item.extents or len(entry.inline) != item.size):
            _refuse(f"{shown(names)} has data within its inode that are not all of its data")
        item.inline = entry.inline
        count = (len(item.extents) // 3) + len(entry.extents) / EXTENT.size
        if count > _MOST_EXTENTS or len(entry.extents) % EXTENT.size:
            _refuse(f"{shown(names)} has {count:g} extents")
        end = item.extents[-3] + item.extents[-1] if item.extents else 0
        for offset, place, length in EXTENT.iter_unpack(entry.extents):
            if offset < end or offset >= item.size or not length or (offset | place | length) % _BLOCK:
                _refuse(f"{shown(names)} cannot have an extent of {length} bytes at {offset}")
            if place + length > self._image_bytes:
                _refuse(f"{shown(names)} has an extent at {place} of a disk of {self._image_bytes} bytes")
            if item.same_as is None:
                self._data_bytes += length
                self._room += max(0, _pages(offset + length) - max(offset // _PAGE, _pages(end))) * _PAGE
            end = offset + length
            item.extents.extend((offset, place, min(length, item.size - offset)))
        # With blocks of 1 KiB each file may end in a page of its own on the host; more than that no file system needs.
        most_room = self._image_bytes + _PAGE * self._entries
        if self._data_bytes > self._image_bytes or self._room > most_room:
            _refuse(f"its files' data are more than the disk's {self._image_bytes} bytes")

    def _add_beside(self, item: Item, entry: changes_pb2.Entry) -> None:
        """What the host's file system has to keep of it besides its name and its extents."""
        if item.same_as is None:
            attributes = sum(len(name) + len(value) for name, value in item.xattrs.items())
            self._beside += len(entry.inline) + len(item.target) + attributes
        if self._beside > self._image_bytes:
            _refuse(f"its links and attributes are more than the disk's {self._image_bytes} bytes")


def _pages(end: int) -> int:
    """How many pages there are before `end`, the last of them maybe in part."""
    return -(-end // _PAGE)


def _read(entry: changes_pb2.Entry, names: Names) -> Item:
    """The entry but for its data."""
    _, mode, uid, gid, rdev, size, mtime_ns, ctime_ns, inode, links = FACTS.unpack(entry.facts)
    kind = stat.S_IFMT(mode)
    if kind not in _TYPES or mode & ~(0o7777 | kind):
        _refuse(f"{shown(names)} has the mode {mode:o}")
    if _NO_ID in (uid, gid):
        _refuse(f"{shown(names)} belongs to nobody")
    if not links or size > (_MOST_SIZE if kind == stat.S_IFREG else 0):
        _refuse(f"{shown(names)} has {size} bytes and {links} names")
    if rdev and (os.major(rdev) >= _MAJOR_LIMIT or os.minor(rdev) >= _MINOR_LIMIT):
        _refuse(f"{shown(names)} is the device {rdev:#x}")
    target = bytes(entry.target)
    if bool(target) != (kind == stat.S_IFLNK) or len(target) > _TARGET_BYTES or b"\0" in target:
        _refuse(f"{shown(names)} is a link to {len(target)} bytes")
    return Item(
        names=names,
        packed=entry.facts,
        mode=mode,
        uid=uid,
        gid=gid,
        rdev=rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        size=size,
        mtime_ns=mtime_ns,
        ctime_ns=ctime_ns,
        inode=inode,
        links=links,
        target=target,
        xattrs=_xattrs(entry.xattrs, kind, names) if entry.xattrs else {},
        opaque=entry.opaque and kind == stat.S_IFDIR,
        needless=entry.needless,
        brief=entry.brief,
        inline=b"",
    )


def _xattrs(said: Iterable[changes_pb2.Xattr], kind: int, names: Names) -> dict[bytes, bytes]:
    """Those that are taken over."""
    xattrs: dict[bytes, bytes] = {}
    for xattr in said:
        if not 0 < len(xattr.name) <= _XATTR_NAME_BYTES or b"\0" in xattr.name or xattr.name in xattrs:
            _refuse(f"{shown(names)} has an attribute {shown((xattr.name[: _XATTR_NAME_BYTES + 1],))}")
        if is_taken(xattr.name, kind):
            xattrs[xattr.name] = xattr.value
    return xattrs


def is_taken(xattr: bytes, kind: int) -> bool:
    """Whether an extended attribute of an inode of this type is a part of what a container writes."""
    if xattr.startswith(b"trusted."):
        return not xattr.startswith(b"trusted.overlay.")
    if xattr.startswith(b"user."):
        return kind in (stat.S_IFREG, stat.S_IFDIR)
    if xattr == b"security.capability":
        return True
    return xattr in _ACL[: 2 if kind == stat.S_IFDIR else 1] and kind != stat.S_IFLNK


def shown(names: Names) -> str:
    """As text that any log takes. A path can have a million bytes, and an answer to containerd no more than four."""
    return untrusted.plain(ascii("/".join(os.fsdecode(name) for name in names) or "/"), _SHOWN)


def _refuse(why: str) -> NoReturn:
    raise GuestError(Code.DATA_LOSS, f"the guest's listing of changes cannot be true: {why}")
