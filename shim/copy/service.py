"""The shim's side of `qemubox cp`: its service, at the socket where containerd calls the task service.

Nobody but root can connect there.
"""

import os
import stat
from collections.abc import AsyncIterator

from api import files_pb2
from api.files_ttrpc import FilesBase
from shim.copy.carry import Copier, Pipe
from shim.errors import SpecError
from ttrpc import Context


class FilesService(FilesBase):
    """See api/files.proto."""

    def __init__(self, copier: Copier) -> None:
        self._copier = copier

    async def Look(self, request: files_pb2.LookRequest, context: Context) -> files_pb2.LookResponse:
        with self._copier.statuses():
            found = await self._copier.look(request.container_id, request.path, follow=request.follow)
            return files_pb2.LookResponse(mode=found.mode, target=found.target)

    async def Read(self, request: files_pb2.ReadRequest, context: Context) -> AsyncIterator[files_pb2.Progress]:
        with self._copier.statuses():
            pipe = pipe_of(context, request.descriptor, reading=False)
            async with self._copier.reading(request.container_id, request.path, pipe, follow=request.follow) as finish:
                yield files_pb2.Progress()
                notes = await finish()
            yield files_pb2.Progress(done=True, notes=notes)

    async def Write(self, request: files_pb2.WriteRequest, context: Context) -> AsyncIterator[files_pb2.Progress]:
        with self._copier.statuses():
            pipe = pipe_of(context, request.descriptor, reading=True)
            async with self._copier.writing(request.container_id, request.directory, request.name, pipe) as finish:
                yield files_pb2.Progress()
                notes = await finish()
            yield files_pb2.Progress(done=True, notes=notes)


def pipe_of(context: Context, number: int, *, reading: bool) -> Pipe:
    """The peer's descriptor `number`, opened anew. Raises SpecError unless it is a pipe."""
    flags = os.O_RDONLY if reading else os.O_WRONLY
    path = f"/proc/{context.peer.pid}/fd/{number}"
    try:
        if not context.peer.pid or not stat.S_ISFIFO(os.stat(path).st_mode):
            raise SpecError(f"descriptor {number} of process {context.peer.pid} is no pipe")
        return Pipe(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise SpecError(f"descriptor {number} of process {context.peer.pid}: {error.strerror}") from error
