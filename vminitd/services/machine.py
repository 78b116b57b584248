"""qemubox.guest.v1.Machine."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

from google.protobuf.empty_pb2 import Empty

from api.guest_pb2 import ConfigureRequest, ConfigureResponse, ResizeRequest, ShutdownRequest
from api.guest_ttrpc import MachineBase
from ttrpc import Context
from vminitd import __version__, identity, log, milestones, trace
from vminitd.capacity import Capacity
from vminitd.containers import Containers
from vminitd.errors import RequestError
from vminitd.network.network import Network
from vminitd.programs import Programs


class MachineService(MachineBase):
    """The machine itself.

    `identified` is set once it is nobody's twin: it has randomness, time and a name of its own. `ended` is set when it
    is to power off: all is unmounted, and the answer is on its way.
    """

    def __init__(
        self,
        capacity: Capacity,
        network: Network,
        containers: Containers,
        programs: Programs,
        warm: Callable[[], Awaitable[None]],
    ) -> None:
        self.ended = asyncio.Event()
        self.identified = asyncio.Event()
        self._capacity = capacity
        self._network = network
        self._containers = containers
        self._programs = programs
        self._warm = warm

    async def WarmUp(self, request: Empty, context: Context) -> Empty:
        if self.identified.is_set():
            raise RequestError("the machine has a name of its own: it cannot become a template")
        await self._warm()
        return Empty()

    async def Configure(self, request: ConfigureRequest, context: Context) -> ConfigureResponse:
        began_ns = milestones.now_ns()
        identity.add_entropy(request.entropy)
        identity.set_clock(request.wall_clock_ns)
        identity.set_hostname(request.hostname)
        if request.log_level:
            if request.log_level not in log.LEVELS:
                raise RequestError(f"the log level is {request.log_level!r}, not one of {', '.join(log.LEVELS)}")
            log.set_level(request.log_level)
        self.identified.set()
        self._capacity.expect(request.vcpus, request.memory_mib)
        if request.HasField("network"):
            self._network.expect(request.network)
        milestones.mark("configured")
        response = ConfigureResponse(
            kernel_release=os.uname().release, vminitd_version=__version__, nonce=random.getrandbits(64)
        )
        trace.tell(response, began_ns)
        return response

    async def Resize(self, request: ResizeRequest, context: Context) -> Empty:
        await self._capacity.there()
        await self._capacity.set_cpus_online(request.vcpus)
        return Empty()

    async def Sync(self, request: Empty, context: Context) -> Empty:
        await asyncio.to_thread(os.sync)
        return Empty()

    async def Shutdown(self, request: ShutdownRequest, context: Context) -> Empty:
        await self._programs.close()  # one may be at home in a file system that is to be unmounted
        await self._containers.end(request.grace_ms / 1000)
        await asyncio.to_thread(os.sync)
        self.ended.set()
        return Empty()
