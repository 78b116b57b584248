"""How this machine comes to its host, and to each stream: by virtio-serial ports, or by vsock.

Either way it may become a template first: it warms up, says so, and waits, and each of its clones goes on from there.
With ports the host asks for that by a call, like any other: there is nothing to do here, and nothing to be done when a
clone wakes up. A machine with vsock is to become a template if it has no vsock device yet when it is up, and whoever
plugs one in is the host.
"""

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from api.link import CONTROL_PORT, port_name
from api.template import READY
from vminitd import deadlines, log
from vminitd.dial import CONTROL_TOKEN, dial, local_cid
from vminitd.errors import KernelError, RequestError
from vminitd.port import Port, find
from vminitd.uevent import Uevents

_DRIVER = "/sys/bus/virtio/drivers/virtio_console"

Warm = Callable[[], Awaitable[None]]


class Link(Protocol):
    """The way to the host."""

    async def attach(self, warm: Warm) -> socket.socket:
        """The control connection, once there is a host to serve. Calls `warm` in a machine that becomes a template."""

    async def dial(self, token: bytes) -> socket.socket:
        """The connection of the stream with this token. Raises KernelError, DeviceError or RequestError."""


def find_link(uevents: Uevents) -> Link:
    """What this machine has. The kernel has bound its devices to their drivers before it starts PID 1."""
    with suppress(FileNotFoundError):
        if any(name.startswith("virtio") for name in os.listdir(_DRIVER)):
            return PortLink(uevents)
    return VsockLink(uevents)


class PortLink:
    """By virtio-serial."""

    def __init__(self, uevents: Uevents) -> None:
        self._uevents = uevents

    async def attach(self, warm: Warm) -> socket.socket:
        return await self._open(CONTROL_PORT, farewell=b"")

    async def dial(self, token: bytes) -> socket.socket:
        try:
            name = port_name(token)
        except ValueError:
            raise RequestError(f"the stream {token.hex()} is no port's name") from None
        return await self._open(name)

    async def _open(self, name: str, **how: bytes) -> socket.socket:
        path = await self._uevents.until(lambda: find(name), f"port {name}", deadlines.CONNECT)
        try:
            return Port(path, **how)
        except OSError as error:
            raise KernelError(f"cannot open port {name}: {error.strerror}") from error


class VsockLink:
    """By vsock: `dial` says how."""

    def __init__(self, uevents: Uevents) -> None:
        self._uevents = uevents

    async def attach(self, warm: Warm) -> socket.socket:
        if local_cid() is None:
            await warm()
            log.announce(READY)
            # If the host cannot be reached once there is a device, it never can: that is an error.
            await self._uevents.until(local_cid, "a vsock device", None)
        return await dial(CONTROL_TOKEN)

    async def dial(self, token: bytes) -> socket.socket:
        return await dial(token)
