"""When the network is set up, and who waits for it.

Configure only says what it is to be: while the kernel finds the interfaces, the first container is made already. Its
Create answers when the network is there, or with what went wrong, since a program may look for its addresses first of
all. The interfaces' queues are a matter of speed alone, and of the processors: no more than a Start waits for them.
"""

import asyncio

from api.guest_pb2 import NetworkConfig
from ttrpc import StatusError
from vminitd import log, milestones, sysctl
from vminitd.capacity import Capacity
from vminitd.errors import KernelError
from vminitd.network import interfaces, queues
from vminitd.network.connection import Connection
from vminitd.network.ipv6 import QuietDefaults
from vminitd.network.plan import removals, requests
from vminitd.network.rehearsal import rehearse
from vminitd.uevent import Uevents


class Network:
    """The machine's network, which is that of its containers."""

    def __init__(self, uevents: Uevents, capacity: Capacity) -> None:
        self._uevents = uevents
        self._capacity = capacity
        self._connection = Connection()
        self._defaults = QuietDefaults()
        self._made: NetworkConfig | None = None
        self._coming: asyncio.Task[None] | None = None
        self._spreading: asyncio.Task[None] | None = None

    def expect(self, config: NetworkConfig) -> None:
        """The network is to become like this, where there is none, or the one that was expected before has gone."""
        self._coming = asyncio.create_task(self._come(config), name="network")
        if any(each.queues > 1 for each in config.interfaces):
            self._spreading = asyncio.create_task(self._spread(self._coming, config), name="queues")

    def rehearse(self) -> None:
        """For a template: what can be done before anything is expected. What fails is left out, and said."""
        try:
            rehearse(self._connection)
        except KernelError as error:
            log.error("network not rehearsed", error=error.message)

    def close(self) -> None:
        """Lets go of the kernel; what was set up stays."""
        self._connection.close()
        self._defaults.restore()

    async def there(self) -> None:
        """Returns when it is as expected. Raises DeviceError, RequestError or KernelError if it does not become so."""
        if self._coming is not None:
            await asyncio.shield(self._coming)
        self._defaults.restore()

    async def complete(self) -> None:
        """Returns when all queues are used as well. Raises what `there` does."""
        await self.there()
        if self._spreading is not None:
            await asyncio.shield(self._spreading)

    async def _come(self, config: NetworkConfig) -> None:
        found = await interfaces.find(self._connection, self._uevents, config.interfaces)
        for each in found:
            self._defaults.apply_to(each)
        self._defaults.restore()
        before, self._made = self._made, config
        self._connection.carry_out([*(removals(before) if before else ()), *requests(config, found)])
        sysctl.apply(dict(config.sysctls))
        milestones.mark("network")
        log.debug("network", interfaces=len(found), routes=len(config.routes))

    async def _spread(self, coming: asyncio.Task[None], config: NetworkConfig) -> None:
        """Without a network, or without processors, there is nothing to do: others tell of that."""
        try:
            await asyncio.shield(coming)
            await self._capacity.there()
        except StatusError:
            return
        for each in config.interfaces:
            if each.queues > 1:
                queues.use(self._connection.socket.fileno(), each.name, each.queues)
