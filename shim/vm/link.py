"""One machine's way to its guest: virtio-serial ports that it has from the start, or vsock that is plugged in.

    ports.py                           the ports' socket pairs and numbers
    vsock.py, vsock_kernel.py, …       vsock, by the kernel or by a daemon

Either way there is one control connection, and a token for each stream that the guest is told of. With ports the
connection is there at once, and a stream beyond the first few is plugged in; with vsock the guest dials.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from api.link import port_number, port_token
from shim.errors import MachineError, StateError
from shim.vm.acceptor import TOKEN_BYTES
from shim.vm.news import News
from shim.vm.ports import Ports
from shim.vm.vsock import VsockBackend, VsockDevice

if TYPE_CHECKING:
    from shim.vm.hotplug import Hotplug
    from shim.vm.qmp import Event

# QEMU speaks of one port once a second at most.
_PORT_FREE_S: Final = 3.0


class Link:
    """The way to one guest. `ports` are those of a machine that was launched with them; it belongs to this object."""

    def __init__(self, ports: Ports | None) -> None:
        self._ports = ports
        self._news = News()
        self._vsock: VsockBackend | None = None
        # Ports that the guest has open, and the removal of those that it has closed.
        self._opened: set[int] = set()
        self._removing: set[asyncio.Task[None]] = set()

    async def add_vsock(
        self,
        backend: VsockBackend,
        prepared: Awaitable[VsockDevice],
        hotplug: "Hotplug",
        *,
        on_lost: Callable[[str], None],
    ) -> None:
        """Plug in a vsock backend, which belongs to this object, as what it has prepared: see VsockBackend."""
        self._vsock = backend
        device = await prepared
        backend.on_lost(on_lost)
        await hotplug.add_vsock(device)
        backend.device_added()

    @property
    def is_there(self) -> bool:
        """Whether there is a way already."""
        return self._ports is not None or self._vsock is not None

    async def control(self, timeout_s: float) -> socket.socket:
        """The control connection, for the caller to own; once. Raises MachineError when the guest does not dial."""
        if self._ports is not None:
            return self._ports.control()
        return await self.vsock.control(timeout_s)

    async def new_stream(self, hotplug: "Hotplug") -> "tuple[bytes, asyncio.Future[socket.socket]]":
        """A token to tell the guest, and our end of that stream, once the guest has dialled where it must.

        Raises ResourceError when there are too many, MachineError.
        """
        if self._ports is None:
            token = secrets.token_bytes(TOKEN_BYTES)
            return token, self.vsock.expect(token)
        number = await self._ports.take(_PORT_FREE_S)
        if not self._ports.is_there(number):
            await self._add_port(self._ports, number, hotplug)
        return port_token(number), self._ports.open(number)

    async def withdraw(self, token: bytes, hotplug: "Hotplug") -> None:
        """Take out the port of a stream that the guest has not opened. vsock has forgotten such a token already."""
        if self._ports is None:
            return
        number = port_number(token)
        if self._ports.is_taken(number) and number not in self._opened:
            await self._remove_port(self._ports, number, hotplug)

    @property
    def vsock(self) -> VsockBackend:
        """The backend. Raises StateError without one."""
        if self._vsock is None:
            raise StateError("the virtual machine has no vsock")
        return self._vsock

    def on_event(self, event: "Event", hotplug: "Hotplug") -> None:
        """VSERPORT_CHANGE: the guest has opened or closed a port. One that it closes has done its duty.

        A clone is told that its ports are closed when it is restored: those have not been opened yet.
        """
        number = self._ports.number(str(event.data.get("id", ""))) if self._ports is not None else 0
        if not number or self._ports is None:
            return
        if event.data.get("open") is True:
            self._opened.add(number)
            self._news.read(self._ports.device(number))
        elif number in self._opened:
            self._opened.discard(number)
            removing = asyncio.create_task(self._remove_port(self._ports, number, hotplug), name=f"port {number}")
            self._removing.add(removing)
            removing.add_done_callback(self._removing.discard)

    async def close(self, timeout_s: float) -> None:
        """After the machine's end: release everything. Raises MachineError for a daemon that does not end."""
        for removing in self._removing:
            removing.cancel()
        await asyncio.gather(*self._removing, return_exceptions=True)
        if self._ports is not None:
            self._ports.close()
        if self._vsock is not None:
            await self._vsock.close(timeout_s)

    async def _add_port(self, ports: Ports, number: int, hotplug: "Hotplug") -> None:
        try:
            await self._news.of_new(ports.device(number))
            with ports.add(number) as child:
                await hotplug.add_port(number, ports.device(number), child.fileno())
        except BaseException:
            ports.free(number)
            raise

    async def _remove_port(self, ports: Ports, number: int, hotplug: "Hotplug") -> None:
        with contextlib.suppress(MachineError):  # QEMU is on its way out
            await self._news.of_removed(ports.device(number))
            await hotplug.remove_port(ports.device(number))
            ports.free(number)
