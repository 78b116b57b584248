"""The memory of machines as files without a name: a template's, taken down and given to its clones.

A template's state file begins with its memory, as it lay there, with holes where it is all
zeros; 50 of 128 MiB are left. A clone has it in one of two ways:

    sealed    one file for all clones, which each maps copy-on-write: what a clone does not write to is there once on
              the host, and nothing is read at a start. It is sealed against writing (F_SEAL_WRITE, fcntl(2)): QEMU
              7.2 opens the file for writing though it never does, and a QEMU that its guest has taken over cannot.
    copy      a file of its own, for a machine whose memory others must map too (vhost-user), or where nobody
              keeps a sealed one: 50 MiB are copied, in 15 to 30 ms.

memfd_create(2) makes both: no file system holds them, and nothing is left of one once the last who has it open is gone.
"""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Final

from shim.errors import HostError

MIB: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
# What is looked through for zeros at once.
_PIECE: Final = 64 << 10


def empty(size: int) -> int:
    """A file of `size` bytes, all of them holes. The descriptor is the caller's. Raises HostError."""
    try:
        fd = os.memfd_create("qemubox-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        raise HostError(f"no file for a machine's memory: {error.strerror}") from error
    try:
        os.ftruncate(fd, size)
    except OSError as error:
        os.close(fd)
        raise HostError(f"no file of {size} bytes for a machine's memory: {error.strerror}") from error
    return fd


def copy(state_fd: int, size: int) -> int:
    """A file with the first `size` bytes of a template's state. Raises HostError."""
    fd = empty(size)
    try:
        for begin, end in _extents(state_fd, size):
            at = os.lseek(fd, begin, os.SEEK_SET)
            while at < end:
                sent = os.sendfile(fd, state_fd, at, end - at)
                if not sent:
                    raise HostError(f"the template's memory ends at {at} of {size} bytes")
                at += sent
    except OSError as error:
        os.close(fd)
        raise HostError(f"the template's memory cannot be read: {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed(state_fd: int, size: int) -> int:
    """As `copy`, and nobody can ever write to it. Raises HostError."""
    fd = copy(state_fd, size)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as error:
        os.close(fd)
        raise HostError(f"a template's memory cannot be sealed: {error.strerror}") from error
    return fd


def take_down(memory_fd: int, size: int, state_fd: int) -> None:
    """Write a machine's memory to the beginning of its state file, less what is zeros. Raises OSError."""
    zeros = bytes(_PIECE)
    with mmap.mmap(memory_fd, size, prot=mmap.PROT_READ) as memory:
        for begin, end in _extents(memory_fd, size):
            for at in range(begin, end, _PIECE):
                piece = memory[at : min(at + _PIECE, end)]
                if piece != zeros[: len(piece)] and os.pwrite(state_fd, piece, at) != len(piece):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Beginning and end of each stretch of data in the first `size` bytes (lseek(2), SEEK_DATA)."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        if begin < size:
            yield begin, end
