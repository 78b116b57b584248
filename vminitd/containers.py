"""All containers of the machine, by id."""

import asyncio
import signal

from vminitd import deadlines, log
from vminitd.container import Container
from vminitd.errors import MountError, TakenError, UnknownError
from vminitd.launch import Machinery
from vminitd.order import Order


class Containers:
    """The registry. An id is taken from the beginning of its create to the end of its delete."""

    def __init__(self, machinery: Machinery) -> None:
        self._machinery = machinery
        self._containers: dict[str, Container] = {}
        self._taken: set[str] = set()

    def get(self, container_id: str) -> Container:
        """Raises UnknownError, also while the container is still being created."""
        container = self._containers.get(container_id)
        if container is None:
            raise UnknownError(f"there is no container {container_id!r}")
        return container

    async def create(self, order: Order) -> Container:
        """Makes a container. Raises TakenError, and whatever `Container.create` does."""
        if order.container_id in self._taken:
            raise TakenError(f"there is a container {order.container_id!r} already")
        self._taken.add(order.container_id)
        try:
            container = Container(self._machinery, order)
            await container.create(order)
        except BaseException:
            self._taken.discard(order.container_id)
            raise
        self._containers[order.container_id] = container
        return container

    async def delete(self, container_id: str, exec_id: str) -> None:
        """Deletes a process, with the container if it is the first one. Raises as `Container.delete` does."""
        container = self.get(container_id)
        await container.delete(exec_id)
        if not exec_id:
            del self._containers[container_id]
            self._taken.discard(container_id)

    async def end(self, grace_s: float) -> None:
        """For the machine's end: all processes get SIGTERM, after `grace_s` SIGKILL; what is writable is unmounted.

        What cannot be unmounted is logged; the machine is going down either way.
        """
        containers = [*self._containers.values()]
        if containers and grace_s > 0:
            await self._stop(containers, signal.SIGTERM, grace_s)
        if containers:
            await self._stop(containers, signal.SIGKILL, deadlines.KILLED)
        for container in reversed(containers):
            try:
                await container.unmount()
            except MountError as error:
                log.error("at the machine's end", error=error.message)

    async def _stop(self, containers: list[Container], number: int, deadline_s: float) -> None:
        for container in containers:
            await container.kill_all(number)
        gone = [asyncio.create_task(container.gone()) for container in containers]
        _, pending = await asyncio.wait(gone, timeout=deadline_s)
        for task in pending:
            task.cancel()
