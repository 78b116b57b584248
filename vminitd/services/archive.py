"""qemubox.guest.v1.Archive."""

import asyncio
import itertools

from api import archive_pb2 as pb
from api.archive_ttrpc import ArchiveBase
from api.guest_pb2 import Stdio
from ttrpc import Context
from vminitd.containers import Containers
from vminitd.copies import Copy, Outcome
from vminitd.dial import TOKEN_SIZE
from vminitd.errors import RequestError, UnknownError

COPIES_MOST = 16
"""That are under way, or whose end nobody has asked for."""


class ArchiveService(ArchiveBase):
    """Copies have numbers until somebody has heard of their end."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._numbers = itertools.count(1)
        self._copies: dict[int, Copy] = {}

    async def Look(self, request: pb.LookRequest, context: Context) -> pb.LookResponse:
        copies = self._containers.get(request.container_id).copies
        found = await copies.look(request.path, follow=request.follow)
        return pb.LookResponse(mode=found.mode, target=found.target)

    async def Read(self, request: pb.ReadRequest, context: Context) -> pb.CopyResponse:
        token = self._token(request.streams, "stdout")
        copies = self._containers.get(request.container_id).copies
        return self._begun(await copies.read(request.path, token, follow=request.follow))

    async def Write(self, request: pb.WriteRequest, context: Context) -> pb.CopyResponse:
        token = self._token(request.streams, "stdin")
        copies = self._containers.get(request.container_id).copies
        return self._begun(await copies.write(request.directory, request.name, token))

    async def Finish(self, request: pb.FinishRequest, context: Context) -> pb.FinishResponse:
        copy = self._copies.get(request.copy)
        if copy is None:
            raise UnknownError(f"there is no copy {request.copy}")
        try:
            outcome = await asyncio.shield(copy.finished)
        finally:  # whoever does not wait for it any more does not come back
            del self._copies[request.copy]
        if isinstance(outcome, Outcome):
            return pb.FinishResponse(notes=outcome.notes, stopped=outcome.stopped)
        raise outcome

    def _token(self, streams: Stdio, name: str) -> bytes:
        if len(self._copies) >= COPIES_MOST:
            raise RequestError(f"{COPIES_MOST} copies are under way: wait for one to end")
        tokens = {each: getattr(streams, each) for each in ("stdin", "stdout", "stderr")}
        token: bytes = tokens.pop(name)
        if len(token) != TOKEN_SIZE or any(tokens.values()) or streams.terminal:
            raise RequestError(f"a copy has one stream, its {name}")
        return token

    def _begun(self, copy: Copy) -> pb.CopyResponse:
        number = next(self._numbers)
        self._copies[number] = copy
        return pb.CopyResponse(copy=number)
