"""qemubox.guest.v1.Changes."""

from api import changes_pb2 as pb
from api.changes_ttrpc import ChangesBase
from ttrpc import Context
from vminitd.containers import Containers


class ChangesService(ChangesBase):
    """What containers have written."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListResponse:
        changes = self._containers.get(request.container_id).changes
        return await changes.page(request.page, upon_earlier=request.upon_earlier, known_ns=request.known_ns)
