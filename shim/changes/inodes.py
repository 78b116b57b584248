"""One file, link or device made on the host as it is in the guest, and a directory's attributes set.

Owner, extended attributes, permissions and time are set in this order: a new owner takes capabilities and set-user-id
bits away, an access list changes the permissions, and each of them the time of change, which is the host's own.
"""

import contextlib
import errno
import os
import stat
import threading
from typing import Final

from shim.changes.listing import Item, is_taken
from shim.errors import GuestError
from ttrpc import Code

OPAQUE: Final = "trusted.overlay.opaque"
# So much is copied in one call, after which it can be called off.
_CHUNK: Final = 32 << 20
_BUFFER: Final = 1 << 20
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# copy_file_range(2) cannot copy between these files, or not at all.
_NO_COPY: Final = frozenset(
    (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO, errno.EPERM, errno.ETXTBSY)
)


class CalledOff(Exception):
    """Nobody waits for it any more."""


class Copy:
    """Data out of the `image`, a descriptor, until `stop` is set."""

    def __init__(self, image: int, stop: threading.Event) -> None:
        self._image = image
        self._stop = stop
        self.data_bytes = 0
        self._in_kernel = True

    def check(self) -> None:
        """Raises CalledOff."""
        if self._stop.is_set():
            raise CalledOff

    def fill(self, fd: int, item: Item) -> None:
        """Give a new file its size and data; what is not in the extents stays a hole. Raises OSError, GuestError."""
        if item.inline:
            os.pwrite(fd, item.inline, 0)
        elif item.size:
            os.ftruncate(fd, item.size)
        for offset, place, length in item.places():
            done = 0
            while done < length:
                self.check()
                copied = self._some(fd, offset + done, place + done, min(length - done, _CHUNK))
                if not copied:
                    raise GuestError(Code.DATA_LOSS, f"the writable image ends before the {length} bytes at {place}")
                done += copied
            self.data_bytes += length

    def _some(self, fd: int, offset: int, place: int, length: int) -> int:
        if self._in_kernel:
            try:
                copied = os.copy_file_range(self._image, fd, length, place, offset)
            except OSError as error:
                if error.errno not in _NO_COPY:
                    raise
            else:
                if copied:
                    return copied
            self._in_kernel = False
        data = os.pread(self._image, min(length, _BUFFER), place)
        return os.pwrite(fd, data, offset)


def make(directory: int, name: bytes, item: Item, copy: Copy) -> None:
    """Make what is neither a directory nor a further name, as `name` in an open directory, where nothing is.

    Raises OSError, GuestError or CalledOff; then it may be there in part.
    """
    kind = stat.S_IFMT(item.mode)
    if kind == stat.S_IFREG:
        fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            copy.fill(fd, item)
            dress(fd, item)
            set_time(fd, item)
        finally:
            os.close(fd)
        return
    if kind == stat.S_IFLNK:
        os.symlink(item.target, name, dir_fd=directory)
    else:
        os.mknod(name, kind | 0o600, item.rdev, dir_fd=directory)
    os.chown(name, item.uid, item.gid, dir_fd=directory, follow_symlinks=False)
    # Only the last of these names is in the tree, and it is not followed; chmod(2) has it for no link.
    path = b"/proc/self/fd/%d/%s" % (directory, name)
    _set_xattrs(path, item)
    if kind != stat.S_IFLNK:
        os.chmod(path, stat.S_IMODE(item.mode))
    os.utime(name, ns=(item.mtime_ns, item.mtime_ns), dir_fd=directory, follow_symlinks=False)


def dress(fd: int, item: Item) -> None:
    """Set owner, extended attributes and permissions of an open file or directory. Raises OSError."""
    os.fchown(fd, item.uid, item.gid)
    _set_xattrs(fd, item)
    os.fchmod(fd, stat.S_IMODE(item.mode))


def is_dressed(fd: int, item: Item) -> bool:
    """Whether an open directory has them already. Raises OSError."""
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid, status.st_mode) != (item.uid, item.gid, item.mode):
        return False
    names = [os.fsencode(name) for name in os.listxattr(fd)]
    return {name: os.getxattr(fd, name) for name in names if is_taken(name, stat.S_IFMT(item.mode))} == item.xattrs


def set_time(fd: int, item: Item) -> None:
    """Set the time of modification, and that of access to the same. Raises OSError."""
    os.utime(fd, ns=(item.mtime_ns, item.mtime_ns))


def set_opaque(fd: int) -> None:
    """An open directory hides what layers below have at its place. Raises OSError."""
    os.setxattr(fd, OPAQUE, b"y")


def is_opaque(fd: int) -> bool:
    """Whether an open directory does so. Raises OSError."""
    return OPAQUE in os.listxattr(fd)


def _set_xattrs(at: int | bytes, item: Item) -> None:
    """Those that the item has, and no others of those that are taken over."""
    follow = isinstance(at, int)
    missing = dict(item.xattrs)
    for text in os.listxattr(at, follow_symlinks=follow):
        name = os.fsencode(text)
        if name in missing:
            if os.getxattr(at, text, follow_symlinks=follow) == missing[name]:
                del missing[name]
        elif is_taken(name, stat.S_IFMT(item.mode)):
            with contextlib.suppress(FileNotFoundError):
                os.removexattr(at, text, follow_symlinks=follow)
    for name, value in missing.items():
        os.setxattr(at, name, value, follow_symlinks=follow)
