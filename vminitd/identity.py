"""Makes the machine itself: its name, its time and its randomness. A clone has its template's until then.

Randomness first of all: no key may be made from what every clone of one template has in common. See random(4),
RNDADDENTROPY and RNDRESEEDCRNG, and Firecracker's docs/snapshotting/random-for-clones.md.
"""

import fcntl
import os
import random
import socket
import struct
import time

from vminitd.errors import KernelError, RequestError

_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_MOST_NAME = 64  # sethostname(2), HOST_NAME_MAX
_LEAST_ENTROPY = 32


def add_entropy(entropy: bytes) -> None:
    """Credits the host's random bytes to the kernel, reseeds it, and Python's generator too.

    Raises RequestError for fewer than 32 bytes, KernelError.
    """
    if len(entropy) < _LEAST_ENTROPY:
        raise RequestError(f"entropy has {len(entropy)} bytes, fewer than {_LEAST_ENTROPY}")
    try:
        device = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _RNDADDENTROPY, entropy_request(entropy))
            fcntl.ioctl(device, _RNDRESEEDCRNG)
        finally:
            os.close(device)
    except OSError as error:
        raise KernelError(f"cannot add entropy: {error.strerror}") from error
    # A number is taken as it is; bytes would be hashed first.
    random.seed(int.from_bytes(os.urandom(32)))


def entropy_request(entropy: bytes) -> bytes:
    """A struct rand_pool_info: bits credited, bytes, the bytes. Pure."""
    return struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy


def set_clock(wall_clock_ns: int) -> None:
    """Sets the wall clock, nanoseconds since 1970. Raises RequestError for a time before that, KernelError."""
    if wall_clock_ns <= 0:
        raise RequestError(f"the wall clock is {wall_clock_ns} ns")
    try:
        time.clock_settime_ns(time.CLOCK_REALTIME, wall_clock_ns)
    except OSError as error:
        raise KernelError(f"cannot set the clock: {error.strerror}") from error


def set_hostname(name: str) -> None:
    """Raises RequestError for a name that the kernel does not take."""
    if not 0 < len(name.encode()) <= _MOST_NAME:
        raise RequestError(f"the hostname {name!r} is not of 1 to {_MOST_NAME} bytes")
    try:
        socket.sethostname(name)
    except OSError as error:
        raise KernelError(f"cannot set the hostname {name!r}: {error.strerror}") from error
