"""Update, carried out: the machine and the guest's cgroup get another size, or stay as they are.

What to do in which order is decided in shim/resizing.py. One update after the other; when a step fails, it and those
before it are taken back, so that an error means that nothing has changed.
"""

import asyncio
import json
from collections.abc import Callable

from api import guest_pb2
from shim import deadlines
from shim.cpuset import format_list
from shim.errors import QemuboxError
from shim.log import Logger
from shim.resizing import Step, decide
from shim.sandbox import Sandbox
from shim.sizing import Bounds, Size
from shim.spec import Json


class Resizer:
    """The size of one container's machine, and the limits that its guest's cgroup has: those of its specification.

    `on_resized` is called with each new size.
    """

    def __init__(
        self,
        container_id: str,
        sandbox: Sandbox,
        *,
        size: Size,
        resources: Json,
        bounds: Bounds,
        on_resized: Callable[[Size], None],
        log: Logger,
    ) -> None:
        self._container_id = container_id
        self._sandbox = sandbox
        self._size = size
        self._in_force = resources
        self._bounds = bounds
        self._on_resized = on_resized
        self._log = log
        self._updating = asyncio.Lock()

    async def update(self, resources: Json) -> None:
        """Put in force what the OCI LinuxResources name.

        Raises SpecError, UnsupportedError, ResourceError, HostError, GuestError or MachineError.
        """
        async with self._updating:
            change = decide(resources, self._in_force, self._size, self._bounds, self._sandbox.memory_room_mib)
            taken: list[Step] = []
            try:
                for step in change.steps:
                    taken.append(step)
                    await self._take(step, change.after, change.resources)
            except QemuboxError:
                for step in reversed(taken):
                    await self._take_back(step, change.before, change.undo)
                raise
            self._size, self._in_force = change.after, change.in_force
            self._on_resized(self._size)
            self._log.info(
                "updated",
                cpus=self._size.cpus,
                memory_mib=self._size.memory_mib,
                host_cpus=format_list(self._size.host_cpus) or "any",
            )

    async def _take(self, step: Step, size: Size, resources: Json) -> None:
        guest = self._sandbox.guest
        match step:
            case Step.PLACE:
                self._sandbox.place(size.host_cpus)
            case Step.MEMORY:
                await self._sandbox.resize_memory(size.memory_mib)
            case Step.CPUS:
                cpus = guest_pb2.ResizeRequest(vcpus=size.cpus)
                await guest.call(guest.machine.Resize(cpus), deadline_s=deadlines.GUEST_CRUN_S)
            case Step.CGROUP:
                limits = guest_pb2.UpdateRequest(
                    container_id=self._container_id, resources=json.dumps(resources).encode()
                )
                await guest.call(guest.containers.Update(limits), deadline_s=deadlines.GUEST_CRUN_S)

    async def _take_back(self, step: Step, size: Size, resources: Json) -> None:
        """What cannot be taken back is logged; the first failure is the one to tell."""
        if step is Step.CGROUP and not resources:
            return  # what there is no way back from
        try:
            await self._take(step, size, resources)
        except QemuboxError as error:
            self._log.warning("an update that failed could not be taken back", step=step.value, error=str(error))
