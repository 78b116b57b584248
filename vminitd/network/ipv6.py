"""IPv6 does nothing of its own accord on the machine's interfaces: it takes neither address nor route from a router.

An interface has these settings from the kernel's defaults of the moment when it comes. So those are changed before any
comes, which in a clone was in its template, and put back before programs may look: interfaces that they make themselves
are as everywhere. One that comes later is told, and so is one that was there before: that takes 4 ms under TCG.
"""

import os

from vminitd.boot import write
from vminitd.errors import KernelError
from vminitd.network.interfaces import Found

_DIRECTORY = "/proc/sys/net/ipv6/conf"
_SETTINGS = ("accept_ra", "autoconf")
_NO_HARDWARE = ("all", "default", "lo")


class QuietDefaults:
    """The defaults, changed from the making of this on, and for the interfaces that are there."""

    def __init__(self, directory: str = _DIRECTORY) -> None:
        """Raises OSError."""
        self._directory = directory
        self._before: dict[int, bytes] = {}
        for setting in _SETTINGS:
            descriptor = os.open(f"{directory}/default/{setting}", os.O_RDWR | os.O_CLOEXEC)
            self._before[descriptor] = os.pread(descriptor, 16, 0)
            os.pwrite(descriptor, b"0", 0)
        for name in os.listdir(directory):
            if name not in _NO_HARDWARE:
                self._quieten(name)

    def apply_to(self, found: Found) -> None:
        """An interface of the machine is quiet after this, or without IPv6 if it is to have none. Raises KernelError.

        Before it comes up.
        """
        try:
            if not self._before:
                self._quieten(found.link.name)
            if not found.wanted.ipv6:
                write(f"{self._directory}/{found.link.name}/disable_ipv6", "1")
        except OSError as error:
            raise KernelError(f"{found.what}: {error.filename} cannot be set: {error.strerror}") from error

    def restore(self) -> None:
        """Puts the defaults back, if they are not yet. Raises OSError."""
        while self._before:
            descriptor, value = self._before.popitem()
            try:
                os.pwrite(descriptor, value, 0)
            finally:
                os.close(descriptor)

    def _quieten(self, name: str) -> None:
        for setting in _SETTINGS:
            write(f"{self._directory}/{name}/{setting}", "0")
