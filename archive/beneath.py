"""openat2(2): opening by a path that cannot lead out of a directory, whatever links are planted on its way.

Python has no function for it (3.13). Linux has it since 5.6; its number is the same on every architecture.
"""

import ctypes
import errno
import os

NO_XDEV = 0x01
NO_MAGICLINKS = 0x02
NO_SYMLINKS = 0x04
BENEATH = 0x08
IN_ROOT = 0x10

_OPENAT2 = 437
# The kernel says EAGAIN where a rename at that very moment keeps it from being sure about a "..".
_TRIES = 100
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """struct open_how, linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """A descriptor of `path` under the open `directory`; closed on exec. `mode` only with O_CREAT. Raises OSError."""
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(_TRIES):
        result = _libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if result >= 0:
            return int(result)
        number = ctypes.get_errno()
        if number != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number), os.fsdecode(path))


def open_directory(directory: int, path: bytes) -> int:
    """The directory `path` beneath the open `directory`, with no symbolic link on the way; empty: that itself."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    return openat2(directory, path or b".", flags, resolve=BENEATH | NO_SYMLINKS | NO_MAGICLINKS)


def in_root(root: int, path: bytes, *, follow: bool) -> int:
    """A descriptor (O_PATH) of `path` as a process sees it whose root directory is the open `root`.

    Absolute links, and "..", stay below it. `follow`: also a symbolic link at its end. Links of /proc that lead
    elsewhere are not followed: ELOOP.
    """
    flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
    return openat2(root, path or b"/", flags, resolve=IN_ROOT | NO_MAGICLINKS)
