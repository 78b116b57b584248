"""A file, or a directory with all below it, into records.

What is packed may change meanwhile, as files of a running container do. A file that becomes longer is packed as long as
it was; one that becomes shorter has zeros at its end, and that is told; one that has gone is left out, and that is told
unless nobody ever saw it. Nothing is opened by more than a name in a directory that is open.

Left out, and told: sockets, which no copy could be connected to. Directories are packed empty where the kernel's own
file systems are mounted on them (/proc, /sys): what is in there is not the container's.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from archive.errors import RefusedError, named, shown
from archive.records import END, HEADER, HOLE, Entry, Kind, encode, entry_of

_PIECE = 128 << 10
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Directories that are open at once: one for each level.
DEPTH_MOST = 900
# What may be told of attributes; trusted.* and security.selinux, say, are each system's own.
XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES, errno.ENOENT})
# statfs(2), linux/magic.h: proc, sysfs, cgroup, cgroup2, devpts, debugfs, tracefs, securityfs, bpf, mqueue, pstore.
_KERNEL_S_OWN = frozenset(
    {0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x64626720, 0x74726163, 0x73636673, 0xCAFE4A11, 0x19800202}
    | {0x6165676C}
)
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
    stat.S_IFCHR: Kind.CHARACTER,
    stat.S_IFBLK: Kind.BLOCK,
}
_libc = ctypes.CDLL(None, use_errno=True)

Write = Callable[[bytes | memoryview], object]
Tell = Callable[[str], None]
Alter = Callable[[Entry], Entry]


class _Item(NamedTuple):
    """The name in an open directory; with an empty one, what is open itself, by O_PATH."""

    directory: int
    name: bytes

    def status(self) -> os.stat_result:
        if not self.name:
            return os.fstat(self.directory)
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def target(self) -> bytes:
        """Of a symbolic link; an empty name is the open link itself: readlinkat(2)."""
        return os.fsencode(os.readlink(self.name, dir_fd=self.directory))

    def open(self, flags: int = 0) -> int:
        if not self.name:
            return os.open(f"/proc/self/fd/{self.directory}", flags | _OPEN & ~os.O_NOFOLLOW)
        return os.open(self.name, flags | _OPEN, dir_fd=self.directory)


def pack(source: int, write: Write, tell: Tell, alter: Alter = lambda entry: entry) -> None:
    """Write all records of what `source` is open on (O_PATH; a symbolic link is one), and the end.

    `tell` hears of what could not be packed as it is; `alter` may change every entry. Raises OSError, RefusedError for
    what must not be packed at all, and what `write` does.
    """
    _Packer(write, tell, alter).run(_Item(source, b""))


class _Level:
    """A directory that is open, and what of it is still to be packed."""

    def __init__(self, directory: int, path: bytes, device: int) -> None:
        self.directory = directory
        self.path = path
        self.device = device
        self.names = sorted(map(os.fsencode, os.listdir(directory)), reverse=True)


class _Packer:
    def __init__(self, write: Write, tell: Tell, alter: Alter) -> None:
        self._write = write
        self._tell = tell
        self._alter = alter
        # Where files with several names were packed first, by device and inode.
        self._seen: dict[tuple[int, int], bytes] = {}
        self._buffer = bytearray(HEADER.size + _PIECE)

    def run(self, item: _Item) -> None:
        levels: list[_Level] = []
        try:
            level = self._one(item, b"", None)
            levels += [level] if level is not None else []
            while levels:
                level = levels[-1]
                if not level.names:
                    os.close(levels.pop().directory)
                    continue
                name = level.names.pop()
                path = b"/".join((level.path, name)) if level.path else name
                below = self._one(_Item(level.directory, name), path, level.device)
                if below is not None:
                    levels.append(below)
                    if len(levels) > DEPTH_MOST:
                        raise RefusedError(f"{shown(path)}: deeper than {DEPTH_MOST} directories, which is not copied")
        finally:
            for level in levels:
                os.close(level.directory)
        self._write(END)

    def _one(self, item: _Item, path: bytes, device: int | None) -> _Level | None:
        """Pack one name; its level if it is a directory that is looked into. `device` is that of its directory."""
        try:
            status = item.status()
            kind = _KINDS.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                self._refuse(path, "a socket is not copied")
                return None
            if kind is Kind.FILE:
                self._file(item, path)
                return None
            if kind is Kind.DIRECTORY:
                return self._directory(item, path, device)
            entry = entry_of(path, status, kind)
            if kind is Kind.SYMLINK:
                entry = entry._replace(target=item.target())
            elif kind is not Kind.FIFO:
                entry = entry._replace(device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
            self._linked_entry(entry, status)
        except FileNotFoundError:
            if not path:
                raise
            self._tell(f"{shown(path)}: it went away while it was copied")
        except OSError as error:
            raise named(error, path) from error
        return None

    def _refuse(self, path: bytes, why: str) -> None:
        if not path:
            raise RefusedError(why)
        self._tell(f"{shown(path)}: {why}")

    def _entry(self, entry: Entry) -> None:
        self._write(encode(self._alter(entry)))

    def _linked_entry(self, entry: Entry, status: os.stat_result) -> bool:
        """Write the entry, or that it is one more name of an earlier one: whether it is."""
        if status.st_nlink > 1:
            first = self._seen.setdefault((status.st_dev, status.st_ino), entry.path)
            if first != entry.path:
                self._entry(Entry(entry.path, Kind.LINK, target=first))
                return True
        self._entry(entry)
        return False

    def _directory(self, item: _Item, path: bytes, device: int | None) -> _Level | None:
        descriptor = item.open(os.O_DIRECTORY)
        try:
            status = os.fstat(descriptor)
            entry = entry_of(path, status, Kind.DIRECTORY)._replace(xattrs=_xattrs(descriptor))
            self._entry(entry)
            if device not in (None, status.st_dev) and _magic(descriptor) in _KERNEL_S_OWN:
                os.close(descriptor)
                return None
            return _Level(descriptor, path, status.st_dev)
        except BaseException:
            os.close(descriptor)
            raise

    def _file(self, item: _Item, path: bytes) -> None:
        descriptor = item.open()
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return self._refuse(path, "it was a file, and became something else while it was copied")
            if not status.st_size and _magic(descriptor) in _KERNEL_S_OWN:
                return self._refuse(path, "it is the kernel's, and has no size: read it instead (cat)")
            entry = entry_of(path, status, Kind.FILE)._replace(xattrs=_xattrs(descriptor))
            if not self._linked_entry(entry, status):
                self._content(descriptor, path, status)
        finally:
            os.close(descriptor)

    def _content(self, descriptor: int, path: bytes, status: os.stat_result) -> None:
        size = status.st_size
        at = 0
        sparse = status.st_blocks * 512 < size
        while at < size:
            data_at, data_end = _next_data(descriptor, at, size) if sparse else (at, size)
            if data_at > at:
                self._hole(data_at - at)
                at = data_at
            while at < data_end:
                got = self._piece(descriptor, at, data_end - at)
                if not got:
                    self._tell(f"{shown(path)}: it became shorter while it was copied, and has zeros at its end")
                    self._hole(size - at)
                    return
                at += got

    def _piece(self, descriptor: int, at: int, most: int) -> int:
        room = memoryview(self._buffer)[HEADER.size :][:most]
        got = os.preadv(descriptor, [room], at)
        if got:
            HEADER.pack_into(self._buffer, 0, b"D", got)
            self._write(memoryview(self._buffer)[: HEADER.size + got])
        return got

    def _hole(self, size: int) -> None:
        self._write(HEADER.pack(b"H", HOLE.size) + HOLE.pack(size))


def _next_data(descriptor: int, at: int, size: int) -> tuple[int, int]:
    """Where data is from `at` on, up to `size`: its begin and end, both `size` where there is none (lseek(2))."""
    try:
        begin = min(os.lseek(descriptor, at, os.SEEK_DATA), size)
        return begin, min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size, size
        if error.errno == errno.EINVAL:  # a file system that knows nothing of holes
            return at, size
        raise


def _xattrs(descriptor: int) -> tuple[tuple[bytes, bytes], ...]:
    """Those that may be told, of an open file; none where the file system has none."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(descriptor)]
        return tuple((name, os.getxattr(descriptor, name)) for name in names if name.startswith(XATTRS))
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return ()
        raise


def _magic(descriptor: int) -> int:
    """The kind of file system that an open file is in: f_type of statfs(2)."""
    status = (ctypes.c_long * 32)()
    if _libc.fstatfs(descriptor, ctypes.byref(status)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "fstatfs")
    return int(status[0])
