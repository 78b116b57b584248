"""Reads a directory tree whole: every inode, by descriptors, never through a link.

What is in an upper directory was written by containers. So a name is opened once, relative to the open directory it
is in and without following it (O_PATH, O_NOFOLLOW), and everything else is asked of that descriptor: what was a file
is not another program's FIFO or a link to the host's a moment later. Devices and FIFOs are never opened.
"""

import errno
import os
import resource
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import HostError, ResourceError, UnsupportedError

# Linux, PATH_MAX less the NUL: what a longer path names, containerd cannot unpack.
_PATH_MAX: Final = 4095
# One for each directory on the way down, the longest path being of single letters.
_DESCRIPTORS: Final = _PATH_MAX // 2 + 64
_NODE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_ABOVE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Node:
    """One inode under one of its names. `fd` is open (O_PATH) until the next node is asked for."""

    path: bytes
    status: os.stat_result
    xattrs: dict[str, bytes]
    fd: int

    @property
    def shown(self) -> str:
        """The path as a message can have it."""
        return self.path.decode(errors="backslashreplace")

    def target(self) -> bytes:
        """Where a symbolic link leads to."""
        return os.readlink(b"", dir_fd=self.fd)

    def open(self) -> int:
        """A descriptor for reading a regular file, which the caller closes."""
        return os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)


def walk(directory: Path) -> Generator[Node, None, None]:
    """Every node below `directory`, which itself is not among them: parents first, names in the order of their bytes.

    Raises HostError, ResourceError (descriptors), UnsupportedError (a path that is too long, another file system).
    """
    _allow_descriptors()
    open_directories: list[int] = []
    try:
        root = os.open(directory, _ABOVE)
        open_directories.append(root)
        device = os.fstat(root).st_dev
        pending = [_names(root, b"")]
        while pending:
            path = next(pending[-1], None)
            if path is None:
                pending.pop()
                os.close(open_directories.pop())
                continue
            if len(path) > _PATH_MAX:
                raise UnsupportedError(f"{directory}: has a path of {len(path)} bytes: {path[:60]!r}…")
            fd = os.open(
                path.rpartition(b"/")[2], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=open_directories[-1]
            )
            try:
                node = Node(path, os.fstat(fd), _xattrs(fd), fd)
                if node.status.st_dev != device:
                    raise UnsupportedError(f"{directory}/{node.shown}: another file system is mounted there")
                yield node
                if stat.S_ISDIR(node.status.st_mode):
                    open_directories.append(os.open(f"/proc/self/fd/{fd}", _ABOVE & ~os.O_NOFOLLOW))
                    pending.append(_names(open_directories[-1], path))
            finally:
                os.close(fd)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise ResourceError(f"{directory}: {error.strerror}", hint="raise the limit of open files") from error
        raise HostError(f"{directory}: {error.strerror}: {error.filename!r}") from error
    finally:
        for fd in open_directories:
            os.close(fd)


def _names(fd: int, above: bytes) -> Iterator[bytes]:
    names = sorted(os.fsencode(name) for name in os.listdir(fd))
    return (b"%s/%s" % (above, name) if above else name for name in names)


def _xattrs(fd: int) -> dict[str, bytes]:
    """By way of /proc: a descriptor that is open as a path alone gives none (open(2), O_PATH)."""
    path = f"/proc/self/fd/{fd}"
    try:
        return {name: os.getxattr(path, name) for name in sorted(os.listxattr(path))}
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise


def _allow_descriptors() -> None:
    """As many as the deepest tree takes, if the host's administrator lets a process have that many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
