"""What a container has written, listed: its upper directory, with where on the disk the files' data are.

A page at a time, and nothing is open between two pages: the file system can be unmounted then. One directory is open
at any moment, however deep the tree is.
"""

import asyncio
import os
import stat
import time
from collections.abc import Sequence

from api.changes_pb2 import ListResponse
from api.inode import FACTS
from vminitd.errors import KernelError, RequestError
from vminitd.fiemap import Map
from vminitd.libc import sync_filesystem
from vminitd.rootfs import Rootfs

# A page is full with so many bytes. An entry more has 100 KiB at most: no page has more than 240.
PAGE_BYTES = 128 << 10
_MOST_BYTES = 90 << 10
_OVERLAY = "trusted.overlay."
_OPAQUE = "trusted.overlay.opaque"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC
# An entry without a name.
_ENTRY_BYTES = FACTS.size + 10


class Changes:
    """The listing of one container that is under way, if there is one: it begins anew with each page 0."""

    def __init__(self, rootfs: Rootfs) -> None:
        self._rootfs = rootfs
        self._listing: Listing | None = None
        self._next = 0
        self._lock = asyncio.Lock()

    async def page(self, number: int, *, upon_earlier: bool = False, known_ns: int = 0) -> ListResponse:
        """As ListRequest says.

        Raises StateError where nothing can be written, RequestError for a page that is not the next, KernelError.
        """
        async with self._lock:
            if not number:
                layers = self._rootfs.lower()[1:] if upon_earlier else None
                self._listing = Listing(self._rootfs.upper(), layers, known_ns)
            elif self._listing is None or number != self._next:
                raise RequestError(f"page {number} of a listing is not the next one")
            self._next = number + 1
            try:
                page = await asyncio.to_thread(self._listing.page)
            except BaseException:
                self._listing = None
                raise
            if page.last:
                self._listing = None
            return page


class Listing:
    """A walk through the tree at `directory`, which nobody changes meanwhile.

    `layers` are those that have what a whiteout must hide; without them, each is needed. What was changed before
    `known_ns` is listed in brief.
    """

    def __init__(self, directory: str, layers: Sequence[str] | None = None, known_ns: int = 0) -> None:
        self._directory = directory
        self._known_ns = known_ns
        self._layers = layers
        self._began_ns = 0
        # The directory that the walk is in, below `directory`; open while a page is made.
        self._path: list[bytes] = []
        self._fd = -1
        # Of it and of each above it what is still to come, the next one last. Empty before the first page.
        self._coming: list[list[bytes]] = []
        self._map = Map()
        # Where in the next file to go on, whose extents fill more than an entry.
        self._offset = 0

    def page(self) -> ListResponse:
        """The next page. Blocks; call it in a thread. Raises KernelError."""
        response = ListResponse()
        try:
            self._fd = os.open(self._directory, _DIRECTORY)
            try:
                if not self._coming:
                    self._begin(response)
                for name in self._path:
                    self._move(name)
                self._fill(response)
            finally:
                os.close(self._fd)
        except OSError as error:
            at = os.fsdecode(b"/".join(self._path))
            raise KernelError(f"cannot list the changes, in {at!r}: {error.strerror}") from error
        response.began_ns = self._began_ns
        return response

    def _begin(self, response: ListResponse) -> None:
        sync_filesystem(self._fd)
        self._began_ns = time.time_ns()
        self._add(response, b"", os.fstat(self._fd), self._fd)
        self._coming.append(_names(self._fd))

    def _fill(self, response: ListResponse) -> None:
        coming = self._coming
        room = PAGE_BYTES
        while room > 0:
            while not coming[-1]:
                coming.pop()
                if not coming:
                    response.last = True
                    return
                self._path.pop()
                self._move(b"..")
            name = coming[-1].pop()
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                room -= self._file(response, name, status)
            elif kind == stat.S_IFDIR:
                self._move(name)
                room -= self._add(response, name, status, self._fd)
                self._path.append(name)
                coming.append(_names(self._fd))
            else:
                # It cannot be opened, or not without an effect.
                room -= self._add(response, name, status, b"/proc/self/fd/%d/%s" % (self._fd, name))
                if kind == stat.S_IFLNK:
                    target = os.readlink(name, dir_fd=self._fd)
                    response.entries[-1].target = target
                    room -= len(target)
                elif kind == stat.S_IFCHR and not status.st_rdev and self._layers is not None:
                    path = [*self._path, name]
                    response.entries[-1].needless = not any(_has(layer, path) for layer in self._layers)

    def _file(self, response: ListResponse, name: bytes, status: os.stat_result) -> int:
        if status.st_ctime_ns < self._known_ns:
            return self._add(response, name, status, b"", status.st_size)
        fd = os.open(name, _FILE, dir_fd=self._fd)
        try:
            if not status.st_size:
                return self._add(response, name, status, fd)
            extents, self._offset, inline = self._map.extents(fd, self._offset, status.st_size)
            taken = self._add(response, name, status, fd, status.st_size, extents)
            if inline:
                response.entries[-1].inline = os.pread(fd, status.st_size, 0)
                taken += status.st_size
            if self._offset:
                response.entries[-1].more = True
                self._coming[-1].append(name)
            return taken
        finally:
            os.close(fd)

    def _add(
        self,
        response: ListResponse,
        name: bytes,
        status: os.stat_result,
        at: int | bytes,
        size: int = 0,
        extents: bytes = b"",
    ) -> int:
        """Adds an entry, whose extended attributes are to be had at `at`; gives about how many bytes that took."""
        facts = FACTS.pack(
            len(self._coming),
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_rdev,
            size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            status.st_ino,
            status.st_nlink,
        )
        entry = response.entries.add(name=name, facts=facts, extents=extents)
        taken = _ENTRY_BYTES + len(name) + len(extents)
        if status.st_ctime_ns < self._known_ns:
            entry.brief = True
            return taken
        follow = isinstance(at, int)
        for key in os.listxattr(at, follow_symlinks=follow):
            if key.startswith(_OVERLAY):
                entry.opaque = entry.opaque or key == _OPAQUE
                continue
            value = os.getxattr(at, key, follow_symlinks=follow)
            entry.xattrs.add(name=os.fsencode(key), value=value)
            taken += len(key) + len(value)
            if taken > _MOST_BYTES:
                raise KernelError(f"the extended attributes of {name!r} have more than {_MOST_BYTES} bytes")
        return taken

    def _move(self, name: bytes) -> None:
        """On into a directory of the one that the walk is in."""
        below = os.open(name, _DIRECTORY, dir_fd=self._fd)
        os.close(self._fd)
        self._fd = below


def _has(layer: str, path: Sequence[bytes]) -> bool:
    """Whether a layer by itself has anything but a whiteout at a path."""
    fd = os.open(layer, _PLACE)
    try:
        for name in path[:-1]:
            below = os.open(name, _PLACE, dir_fd=fd)
            os.close(fd)
            fd = below
        status = os.stat(path[-1], dir_fd=fd, follow_symlinks=False)
        return not stat.S_ISCHR(status.st_mode) or status.st_rdev != 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    finally:
        os.close(fd)


def _names(fd: int) -> list[bytes]:
    """What is in a directory, the first one last."""
    names = [os.fsencode(name) for name in os.listdir(fd)]
    names.sort(reverse=True)
    return names
