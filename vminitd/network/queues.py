"""How many pairs of queues an interface uses: one, until it is told otherwise, when it comes before the processors do.

By ioctl(2), SIOCETHTOOL (linux/ethtool.h): it needs no name to be resolved first, as the netlink way does.
"""

import ctypes
import fcntl
import struct

from vminitd.errors import KernelError

_SIOCETHTOOL = 0x8946
_ETHTOOL_SCHANNELS = 0x3D
# command, the most of rx, tx, other and combined, and how many of each: struct ethtool_channels
_CHANNELS = struct.Struct("=9I")
# name, address: struct ifreq
_IFREQ = struct.Struct("=16sQ16x")


def channels(pairs: int) -> bytes:
    """What is asked for. Pure."""
    return _CHANNELS.pack(_ETHTOOL_SCHANNELS, 0, 0, 0, 0, 0, 0, 0, pairs)


def use(descriptor: int, interface: str, pairs: int) -> None:
    """Has `interface` use `pairs` pairs of queues. `descriptor` is any socket. Raises KernelError."""
    request = ctypes.create_string_buffer(channels(pairs))
    try:
        fcntl.ioctl(descriptor, _SIOCETHTOOL, _IFREQ.pack(interface.encode(), ctypes.addressof(request)))
    except OSError as error:
        raise KernelError(f"interface {interface} cannot use {pairs} pairs of queues: {error.strerror}") from error
