"""A TAP for a machine of a test: an interface that nobody is at the other end of."""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import Final

# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI_VNET_HDR: Final = 0x0002 | 0x1000 | 0x4000


@contextlib.contextmanager
def tap() -> Iterator[int]:
    """An open TAP; the interface is gone when all have closed it."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"qbxtest%d", _IFF_TAP_NO_PI_VNET_HDR))
        yield fd
    finally:
        os.close(fd)
