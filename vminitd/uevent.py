"""The kernel's device events: how one waits for a disk, a vCPU or memory without polling.

The kernel multicasts "add@/devices/…" to netlink sockets of NETLINK_KOBJECT_UEVENT (netlink(7); lib/kobject_uevent.c).
Whoever waits looks first and listens afterwards, with the socket bound before the first look, so that nothing
falls between. What an event says is never believed: it is only a reason to look again.
"""

import asyncio
import socket
from collections.abc import Callable, Collection
from typing import NamedTuple, TypeVar

from vminitd import log
from vminitd.errors import DeviceError

T = TypeVar("T")

_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_MOST_BYTES = 8192
_BUFFER = 1 << 20


class Uevent(NamedTuple):
    """One event: "add", "remove", "change", "online", "bind", … of a device in a subsystem."""

    action: str
    devpath: str
    subsystem: str


def parse(message: bytes) -> Uevent | None:
    """The event in a datagram: "ACTION@DEVPATH", then KEY=VALUE, each ended by NUL. None if it is none."""
    head, *pairs = message.rstrip(b"\0").decode(errors="replace").split("\0")
    action, at, devpath = head.partition("@")
    if not at or not action or not devpath.startswith("/"):
        return None
    values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return Uevent(action, devpath, values.get("SUBSYSTEM", ""))


def kernel_socket() -> socket.socket:
    """A bound, non-blocking socket that gets every event from now on."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, _NETLINK_KOBJECT_UEVENT)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    sock.bind((0, _KERNEL_GROUP))
    return sock


class Uevents:
    """Wakes everyone who waits whenever the kernel tells of a device."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` as from `kernel_socket`; it stays with this object."""
        self._sock = sock
        # What each waits for events of; nothing named: of all subsystems.
        self._waiters: dict[asyncio.Future[None], Collection[str]] = {}
        asyncio.get_running_loop().add_reader(sock, self._receive)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def until(
        self,
        look: Callable[[], T | None],
        what: str,
        deadline_s: float | None,
        subsystems: Collection[str] = (),
    ) -> T:
        """The first result of `look` that is not None; it is called now and after every event of `subsystems` (or any).

        Raises DeviceError, which names `what`, after `deadline_s` seconds; None waits for ever.
        """
        try:
            async with asyncio.timeout(deadline_s):
                while True:
                    woken = asyncio.get_running_loop().create_future()
                    self._waiters[woken] = subsystems
                    try:
                        if (found := look()) is not None:
                            return found
                        await woken
                    finally:
                        del self._waiters[woken]
        except TimeoutError:
            raise DeviceError(f"{what} did not appear within {deadline_s:g} s") from None

    def _receive(self) -> None:
        told: set[str] = set()
        lost = False
        while True:
            try:
                message = self._sock.recv(_MOST_BYTES)
            except BlockingIOError:
                break
            except OSError as error:  # ENOBUFS: events were lost, which is a reason to look as well
                log.debug("device events lost", errno=error.errno or 0)
                lost = True
                continue
            if (event := parse(message)) is not None:
                log.debug("device", action=event.action, path=event.devpath)
                told.add(event.subsystem)
        for woken, subsystems in self._waiters.items():
            if not woken.done() and (lost or not subsystems or not told.isdisjoint(subsystems)):
                woken.set_result(None)
