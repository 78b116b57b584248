"""A TAP for a machine of a test: an interface, in a network of its own, that nobody is at the other end of."""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

from harness.netns import apart

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI_VNET_HDR: Final = 0x0002 | 0x1000 | 0x4000


@contextlib.contextmanager
def tap() -> Iterator[int]:
    """An open TAP; the interface is gone when all have closed it."""
    fd = apart(_opened)
    try:
        yield fd
    finally:
        os.close(fd)


def _opened() -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"qbxtest%d", _IFF_TAP_NO_PI_VNET_HDR))
    except OSError:
        os.close(fd)
        raise
    return fd
