"""IPv6 does nothing of its own accord on the machine's interfaces: it takes neither address nor route from a router.

An interface has these settings from the kernel's defaults of the moment when it comes. So those are changed before any
comes, which in a clone was in its template, and put back when all have come: interfaces that programs make themselves
are as everywhere. In a machine that boots with its interfaces each is told.
"""

import os

from vminitd.boot import write
from vminitd.errors import KernelError
from vminitd.network.interfaces import Found

_DIRECTORY = "/proc/sys/net/ipv6/conf"
_SETTINGS = ("accept_ra", "autoconf")
_NO_HARDWARE = ("all", "default", "lo")


class QuietDefaults:
    """The defaults, changed from the making of this on."""

    def __init__(self, directory: str = _DIRECTORY) -> None:
        """Raises OSError."""
        self._before: dict[int, bytes] = {}
        for setting in _SETTINGS:
            descriptor = os.open(f"{directory}/default/{setting}", os.O_RDWR | os.O_CLOEXEC)
            self._before[descriptor] = os.pread(descriptor, 16, 0)
            os.pwrite(descriptor, b"0", 0)
        for name in os.listdir(directory):
            if name not in _NO_HARDWARE:
                for setting in _SETTINGS:
                    write(f"{directory}/{name}/{setting}", "0")

    @property
    def in_force(self) -> bool:
        """Whether interfaces that come have these."""
        return bool(self._before)

    def restore(self) -> None:
        """Puts them back; once, or as often as one likes. Raises OSError."""
        while self._before:
            descriptor, value = self._before.popitem()
            try:
                os.pwrite(descriptor, value, 0)
            finally:
                os.close(descriptor)


def quieten(found: Found, directory: str = _DIRECTORY) -> None:
    """Lets an interface have neither address nor route from a router, before it comes up. Raises KernelError."""
    for setting in _SETTINGS:
        _set(found, setting, "0", directory)


def switch_off(found: Found, directory: str = _DIRECTORY) -> None:
    """Takes IPv6 away from an interface. Raises KernelError."""
    _set(found, "disable_ipv6", "1", directory)


def _set(found: Found, setting: str, value: str, directory: str) -> None:
    """By the name that it has when it is found."""
    try:
        write(f"{directory}/{found.link.name}/{setting}", value)
    except OSError as error:
        raise KernelError(f"{found.what}: {setting} of IPv6 cannot be set to {value}: {error.strerror}") from error
