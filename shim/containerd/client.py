"""containerd, as a command of ours sees it: containers, tasks, images, leases."""

import contextlib
import datetime
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from google.protobuf import empty_pb2

from api import containerd_pb2 as api
from api import task_types_pb2
from shim.containerd.connection import Connection
from shim.containerd.content import Content
from shim.containerd.snapshots import Snapshots
from shim.deadlines import CONTAINERD_COMMIT_S, CONTAINERD_PAUSE_S
from shim.errors import NotFoundError, SpecError

# Of a command that was killed, everything goes after this time (pkg/gc, label of a lease).
_LEASE_HOURS: Final = 24
# What ids and names consist of (containerd, pkg/identifiers), and how much of an id names a container.
_PART_OF_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SHORTEST: Final = 4


class Client:
    """One namespace of the containerd that listens at `address`; an asynchronous context manager.

    Every call raises the errors of Connection.call, whose text names what was asked for.
    """

    def __init__(self, address: Path, namespace: str) -> None:
        self._connection = Connection(address, namespace)
        self.content = Content(self._connection)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._connection.__aexit__()

    def snapshots(self, snapshotter: str) -> Snapshots:
        """The snapshots of that snapshotter."""
        return Snapshots(self._connection, snapshotter)

    async def container(self, container: str) -> api.Container:
        """What containerd has written down of the container of that id, nerdctl name, or beginning of an id.

        Raises NotFoundError; SpecError where several fit.
        """
        request = api.GetContainerRequest(id=container)
        named = f"container {container}"
        try:
            reply = await self._connection.call(
                "containers.v1.Containers/Get", request, api.GetContainerResponse, named
            )
            return reply.container
        except NotFoundError:
            if not _PART_OF_NAME.fullmatch(container):
                raise
            for wanted in (f'labels."nerdctl/name"=="{container}"', f'id~="^{container.replace(".", "[.]")}"'):
                if wanted.startswith("id") and len(container) < _SHORTEST:
                    break
                found = await self._connection.call(
                    "containers.v1.Containers/List",
                    api.ListContainersRequest(filters=[wanted]),
                    api.ListContainersResponse,
                    named,
                )
                if len(found.containers) > 1:
                    several = ", ".join(each.id for each in found.containers)
                    raise SpecError(
                        f"{container} is more than one container: {several}", hint="say the whole id"
                    ) from None
                if found.containers:
                    return found.containers[0]
            raise

    async def status(self, container: str) -> "task_types_pb2.Status | None":
        """The state of its task; None if it has none."""
        request = api.GetTaskRequest(container_id=container)
        try:
            reply = await self._connection.call(
                "tasks.v1.Tasks/Get", request, api.GetTaskResponse, f"task of {container}"
            )
        except NotFoundError:
            return None
        return reply.process.status

    async def pause(self, container: str) -> None:
        """Its processes stand still, and what they wrote is on the host."""
        await self._connection.call(
            "tasks.v1.Tasks/Pause",
            api.PauseTaskRequest(container_id=container),
            empty_pb2.Empty,
            f"pause {container}",
            deadline_s=CONTAINERD_PAUSE_S,
        )

    async def resume(self, container: str) -> None:
        """They go on."""
        await self._connection.call(
            "tasks.v1.Tasks/Resume",
            api.ResumeTaskRequest(container_id=container),
            empty_pb2.Empty,
            f"resume {container}",
        )

    async def image(self, name: str) -> api.Image:
        """The image of that very name. Raises NotFoundError."""
        reply = await self._connection.call(
            "images.v1.Images/Get", api.GetImageRequest(name=name), api.GetImageResponse, f"image {name}"
        )
        return reply.image

    async def put_image(self, name: str, target: api.Descriptor) -> None:
        """The name is that of `target` from now on, whatever it was before; its labels stay."""
        image = api.Image(name=name, target=target)
        change = api.UpdateImageRequest(image=image)
        change.update_mask.paths.append("target")
        try:
            await self._connection.call("images.v1.Images/Update", change, api.UpdateImageResponse, f"image {name}")
        except NotFoundError:
            create = api.CreateImageRequest(image=image)
            await self._connection.call("images.v1.Images/Create", create, api.CreateImageResponse, f"image {name}")

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[str]:
        """What is made in here is kept until the end, and from then on only if something refers to it; its id.

        After an error containerd collects before this returns.
        """
        lease = f"qemubox-{secrets.token_hex(8)}"
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=_LEASE_HOURS)
        labels = {"containerd.io/gc.expire": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
        await self._connection.call(
            "leases.v1.Leases/Create",
            api.CreateLeaseRequest(id=lease, labels=labels),
            api.CreateLeaseResponse,
            f"lease {lease}",
        )
        self._connection.hold_by(lease)
        failed = True
        try:
            yield lease
            failed = False
        finally:
            self._connection.hold_by("")
            with contextlib.suppress(NotFoundError):  # somebody has removed it
                await self._connection.call(
                    "leases.v1.Leases/Delete",
                    api.DeleteLeaseRequest(id=lease, sync=failed),
                    empty_pb2.Empty,
                    f"lease {lease}",
                    deadline_s=CONTAINERD_COMMIT_S,
                )
