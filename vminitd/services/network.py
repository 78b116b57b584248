"""qemubox.guest.v1.Network."""

from collections.abc import Awaitable, Callable

from google.protobuf.empty_pb2 import Empty

from api.guest_pb2 import ForwardRequest
from api.guest_ttrpc import NetworkBase
from ttrpc import Context
from vminitd.dial import Dial

Forward = Callable[[ForwardRequest, Dial], Awaitable[None]]
"""Connects to a port of the machine, and dials for the streams that carry the connection."""


class NetworkService(NetworkBase):
    """What the host asks of the network that is there."""

    def __init__(self, forward: Forward, dial: Dial) -> None:
        self._forward = forward
        self._dial = dial

    async def Forward(self, request: ForwardRequest, context: Context) -> Empty:
        await self._forward(request, self._dial)
        return Empty()
