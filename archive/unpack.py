"""Records into a directory, beyond which none of them can reach.

Whoever wrote the stream is not trusted, and neither is what is in the directory already: a symbolic link there may have
been planted. So each entry's directory is opened beneath the one that was given, with no symbolic link on the way
(`beneath`), and everything is done to a name in it; files are made anew, never opened where something was. As with
docker cp and tar, what is in the place of a file is replaced, directories are joined with those that are there, and a
directory and anything else never take each other's place.

A directory gets its mode and time when the stream has left it; one that was there before, and is where the stream's
first entry goes by itself (`base` is empty), keeps its own.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from archive.beneath import open_directory, openat2
from archive.errors import RefusedError, named, shown
from archive.pack import XATTRS
from archive.records import Entry, Hole, Kind, Record

_PRIVATE = 0o700
_PERMISSIONS = 0o1777
_IN_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EXDEV})
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EPERM, errno.EINVAL})

Tell = Callable[[str], None]


class Keep(NamedTuple):
    """What of the entries is kept: owners, set-user-id and set-group-id bits, device nodes, attributes by beginning."""

    owners: bool
    special_bits: bool
    devices: bool
    xattrs: tuple[bytes, ...]


ALL = Keep(owners=True, special_bits=True, devices=True, xattrs=XATTRS)
HARMLESS = Keep(owners=False, special_bits=False, devices=False, xattrs=(b"user.",))
"""Of a stream that is not trusted: nothing in it has power by itself."""


def unpack(records: Iterable[Record], directory: int, base: bytes, keep: Keep, tell: Tell) -> None:
    """Put the stream's first entry into the open `directory` as `base`, and all others where they belong below it.

    With an empty `base` the first entry is a directory, and `directory` itself. `tell` hears of what could not be kept.
    Raises RefusedError, OSError with the path, and what `records` raises; then a file that was not whole is removed,
    and the rest stays.
    """
    unpacker = _Unpacker(directory, base, keep, tell)
    try:
        for record in records:
            unpacker.take(record)
        unpacker.finish()
    finally:
        unpacker.close()


class _Open(NamedTuple):
    """The file that is being written."""

    descriptor: int
    parent: int
    name: bytes
    path: bytes
    entry: Entry


class _Unpacker:
    def __init__(self, directory: int, base: bytes, keep: Keep, tell: Tell) -> None:
        self._root = directory
        self._base = base
        self._keep = keep
        self._tell = tell
        self._file: _Open | None = None
        self._at = 0
        # The directories that the last entry was in, with what they are to become.
        self._levels: list[tuple[bytes, Entry]] = []
        # The directory of the last entry, which most have in common with the next.
        self._parent_path: bytes | None = None
        self._parent = -1

    def take(self, record: Record) -> None:
        if isinstance(record, Entry):
            self._close_file()
            path = b"/".join(part for part in (self._base, record.path) if part)
            try:
                self._leave(path)
                self._entry(path, record)
            except OSError as error:
                raise named(error, path) from error
        elif self._file is not None:
            try:
                self._data(self._file.descriptor, record)
            except OSError as error:
                raise named(error, self._file.path) from error

    def finish(self) -> None:
        """All has come."""
        self._close_file()
        self._leave(None)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file.descriptor)
            with suppress(OSError):  # it is mounted there, or gone; what went wrong before is what counts
                os.unlink(self._file.name, dir_fd=self._file.parent)
            self._file = None
        self._forget_parent()

    def _data(self, descriptor: int, record: Hole | memoryview) -> None:
        if isinstance(record, Hole):
            self._at += record.size
            return
        while record:
            written = os.pwrite(descriptor, record, self._at)
            self._at += written
            record = record[written:]

    def _entry(self, path: bytes, entry: Entry) -> None:
        if not path:
            if entry.kind is not Kind.DIRECTORY:
                raise RefusedError("a directory is what is to be filled, and this is none")
            return
        parent, name = self._parent_of(path), path.rpartition(b"/")[2]
        match entry.kind:
            case Kind.DIRECTORY:
                self._directory(parent, name, path)
                self._levels.append((path, entry))
            case Kind.FILE:
                self._file = _Open(self._new_file(parent, name, path), parent, name, path, entry)
                self._at = 0
            case Kind.LINK:
                self._link(parent, name, path, entry)
            case Kind.SYMLINK:
                self._clear(parent, name, path)
                os.symlink(entry.target, name, dir_fd=parent)
                self._finish_symlink(parent, name, entry)
            case Kind.FIFO:
                self._clear(parent, name, path)
                os.mkfifo(name, 0o600, dir_fd=parent)
                self._finish_node(parent, name, entry)
            case Kind.CHARACTER | Kind.BLOCK:
                self._device(parent, name, path, entry)

    def _parent_of(self, path: bytes) -> int:
        parent = path.rpartition(b"/")[0]
        if self._parent_path != parent:
            self._forget_parent()
            self._parent = self._open(parent, make=True)
            self._parent_path = parent
        return self._parent

    def _forget_parent(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_path = -1, None

    def _open(self, path: bytes, *, make: bool) -> int:
        """The directory `path`; those that a stream leaves out, as tar's may, are made."""
        try:
            if make:
                with suppress(FileNotFoundError):
                    return open_directory(self._root, path)
                self._make(path)
            return open_directory(self._root, path)
        except OSError as error:
            if error.errno in _IN_THE_WAY:
                raise RefusedError(f"{shown(path)}: there is a symbolic link in the way, or no directory") from error
            raise

    def _make(self, path: bytes) -> None:
        """All directories on the way to `path`, and that: as many as a path can name, so not by recursion."""
        directory = os.dup(self._root)
        try:
            for name in path.split(b"/"):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=directory)
                below = open_directory(directory, name)
                os.close(directory)
                directory = below
        finally:
            os.close(directory)

    def _directory(self, parent: int, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, _PRIVATE, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise RefusedError(f"{shown(path)}: a directory does not take the place of what is none") from None

    def _clear(self, parent: int, name: bytes, path: bytes) -> None:
        """Make room for what is no directory."""
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise RefusedError(f"{shown(path)}: what is no directory does not take the place of one") from None
            raise

    def _new_file(self, parent: int, name: bytes, path: bytes) -> int:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._clear(parent, name, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # A file that is mounted there, as /etc/hosts is: it stays, and gets the content.
            return os.open(name, flags | os.O_TRUNC | os.O_NONBLOCK, dir_fd=parent)
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)

    def _link(self, parent: int, name: bytes, path: bytes, entry: Entry) -> None:
        target = b"/".join(part for part in (self._base, entry.target) if part)
        above, _, old = target.rpartition(b"/")
        if target == path:
            raise RefusedError(f"{shown(path)}: a link to itself")
        directory = self._open(above, make=False)
        try:
            self._clear(parent, name, path)
            os.link(old, name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(directory)

    def _device(self, parent: int, name: bytes, path: bytes, entry: Entry) -> None:
        if not self._keep.devices:
            self._tell(f"{shown(path)}: a device node is not made unless owners are kept, too")
            return
        self._clear(parent, name, path)
        kind = stat.S_IFCHR if entry.kind is Kind.CHARACTER else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
        self._finish_node(parent, name, entry)

    def _mode(self, entry: Entry) -> int:
        return entry.mode if self._keep.special_bits else entry.mode & _PERMISSIONS

    def _finish_symlink(self, parent: int, name: bytes, entry: Entry) -> None:
        if self._keep.owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=parent, follow_symlinks=False)

    def _finish_node(self, parent: int, name: bytes, entry: Entry) -> None:
        """Of what must not be opened, as a FIFO or a device."""
        self._finish_symlink(parent, name, entry)
        node = openat2(parent, name, os.O_PATH | os.O_NOFOLLOW, resolve=0)
        try:
            if not stat.S_ISLNK(os.fstat(node).st_mode):
                os.chmod(f"/proc/self/fd/{node}", self._mode(entry))
        finally:
            os.close(node)

    def _close_file(self) -> None:
        if self._file is None:
            return
        file = self._file
        try:
            os.ftruncate(file.descriptor, file.entry.size)
            self._finish_open(file.descriptor, file.path, file.entry)
        except OSError as error:
            raise named(error, file.path) from error
        os.close(file.descriptor)
        self._file = None

    def _leave(self, path: bytes | None) -> None:
        """Finish the directories that `path` is not in; None: all."""
        while self._levels and (path is None or not path.startswith(self._levels[-1][0] + b"/")):
            left, entry = self._levels.pop()
            try:
                directory = self._open(left, make=False)
                try:
                    self._finish_open(directory, left, entry)
                finally:
                    os.close(directory)
            except OSError as error:
                raise named(error, left) from error

    def _finish_open(self, descriptor: int, path: bytes, entry: Entry) -> None:
        """In this order: a change of owners takes the bits and attributes that give power."""
        if self._keep.owners:
            os.fchown(descriptor, entry.uid, entry.gid)
        os.fchmod(descriptor, self._mode(entry))
        for name, value in entry.xattrs:
            if name.startswith(self._keep.xattrs):
                self._attribute(descriptor, path, name, value)
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _attribute(self, descriptor: int, path: bytes, name: bytes, value: bytes) -> None:
        try:
            os.setxattr(descriptor, name, value)
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
            self._tell(f"{shown(path)}: its attribute {shown(name)} is not kept: {os.strerror(error.errno)}")
