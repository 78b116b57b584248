"""qemubox.guest.v1.Network."""

from google.protobuf.empty_pb2 import Empty

from api import guest_pb2 as pb
from api.guest_ttrpc import NetworkBase
from ttrpc import Context
from vminitd.forward import Forwarder
from vminitd.services.containers import wish


class NetworkService(NetworkBase):
    """The machine's network, which is that of its containers."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder

    async def Forward(self, request: pb.ForwardRequest, context: Context) -> Empty:
        await self._forwarder.forward(request.address, request.port, wish(request.streams))
        return Empty()
