"""The shim's side of `qemubox cp`: carries bytes between a pipe of the command and a stream of the guest.

It believes neither: what the guest sends is looked at by the command alone, which unpacks it. Nobody
but root can connect to the shim's socket. When the command goes away, its call is cancelled, and with
it the stream, by which the guest's side ends, too.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from typing import Final

from api import archive_pb2, files_pb2
from api.files_ttrpc import FilesBase
from shim import deadlines, untrusted
from shim.descriptors import readable, writable
from shim.errors import GuestError, NotFoundError, QemuboxError, ResourceError, SpecError
from shim.log import Logger
from shim.relay import relay_input, relay_output
from shim.task.container import Container
from ttrpc import Code, Context, StatusError

# At once, of one container. Where streams are virtio-serial ports there are 62 of them.
MOST: Final = 8
_NOTES_MOST: Final = 100
_NOTE_LENGTH: Final = 400


class FilesService(FilesBase):
    """`containers` are those of the task service, by id."""

    def __init__(self, containers: Mapping[str, Container], log: Logger) -> None:
        self._containers = containers
        self._log = log
        self._copies = 0

    async def Look(self, request: files_pb2.LookRequest, context: Context) -> files_pb2.LookResponse:
        with self._statuses():
            guest = self._container(request.container_id).sandbox.guest
            asked = archive_pb2.LookRequest(container_id=request.container_id, path=request.path, follow=request.follow)
            found = await guest.call(guest.archive.Look(asked), deadline_s=deadlines.GUEST_CALL_S)
            return files_pb2.LookResponse(mode=found.mode, target=found.target)

    async def Read(self, request: files_pb2.ReadRequest, context: Context) -> AsyncIterator[files_pb2.Progress]:
        with self._statuses(), self._counted():
            container = self._container(request.container_id)
            guest = container.sandbox.guest
            asked = archive_pb2.ReadRequest(container_id=request.container_id, path=request.path, follow=request.follow)
            async with _Copy("stdout", _Pipe.of(context, request.descriptor, os.O_WRONLY)) as copy:
                async with container.sandbox.streams(copy, asked.streams):
                    begun = await guest.call(guest.archive.Read(asked), deadline_s=deadlines.GUEST_CALL_S)
                yield files_pb2.Progress()
                finish = guest.archive.Finish(archive_pb2.FinishRequest(copy=begun.copy))
                outcome = await copy.carried(guest.call(finish, deadline_s=None))
            yield files_pb2.Progress(done=True, notes=_notes(outcome))

    async def Write(self, request: files_pb2.WriteRequest, context: Context) -> AsyncIterator[files_pb2.Progress]:
        with self._statuses(), self._counted():
            container = self._container(request.container_id)
            guest = container.sandbox.guest
            asked = archive_pb2.WriteRequest(
                container_id=request.container_id, directory=request.directory, name=request.name
            )
            async with _Copy("stdin", _Pipe.of(context, request.descriptor, os.O_RDONLY)) as copy:
                async with container.sandbox.streams(copy, asked.streams):
                    begun = await guest.call(guest.archive.Write(asked), deadline_s=deadlines.GUEST_CALL_S)
                yield files_pb2.Progress()
                finish = guest.archive.Finish(archive_pb2.FinishRequest(copy=begun.copy))
                outcome = await copy.carried(guest.call(finish, deadline_s=None))
            await container.copied_into()
            yield files_pb2.Progress(done=True, notes=_notes(outcome))

    def _container(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFoundError(f"container {container_id} has no task", hint="start it")
        return container

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if self._copies >= MOST:
            raise ResourceError(f"{MOST} copies of this container are under way", hint="wait for one to end")
        self._copies += 1
        try:
            yield
        finally:
            self._copies -= 1

    @contextlib.contextmanager
    def _statuses(self) -> Iterator[None]:
        """Turn an error of the tree in shim/errors.py into a status, and anything else into Internal, logged."""
        try:
            yield
        except QemuboxError as error:
            code = error.status if isinstance(error, GuestError) else error.code
            self._log.debug("copy failed", code=code.name, error=str(error))
            raise StatusError(code, str(error)) from error
        except OSError as error:
            self._log.info("copy broken off", error=str(error))
            raise StatusError(Code.ABORTED, f"the copy was broken off: {error.strerror}") from error


class _Copy:
    """The host's end of the one stream of a copy: shim/relay.py, Streams."""

    def __init__(self, name: str, pipe: "_Pipe") -> None:
        self.names = (name,)
        self._pipe = pipe
        self._relay: asyncio.Task[bool] | None = None

    async def __aenter__(self) -> "_Copy":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._relay is not None:
            self._relay.cancel()
            await asyncio.gather(self._relay, return_exceptions=True)
        self._pipe.close()

    def connect(self, name: str, connection: socket.socket) -> None:
        """See shim/relay.py, Streams."""
        relay = relay_input(connection, self._pipe) if name == "stdin" else relay_output(connection, self._pipe)
        self._relay = asyncio.create_task(relay, name="copy")
        self._relay.add_done_callback(lambda _: connection.close())

    async def carried(self, call: Awaitable[archive_pb2.FinishResponse]) -> archive_pb2.FinishResponse:
        """Return the guest's last word once all bytes are carried.

        Raises GuestError, MachineError, OSError where the command takes no more.
        """
        assert self._relay is not None
        finish = asyncio.ensure_future(call)
        try:
            await asyncio.wait((self._relay, finish), return_when=asyncio.FIRST_COMPLETED)
            if not finish.done() and self._relay.exception() is None:
                await asyncio.wait((finish,), timeout=deadlines.DRAIN_S)
            if finish.done():
                outcome = finish.result()
                # The guest ends when all is with us: what is left to do is ours.
                await asyncio.wait((self._relay,), timeout=deadlines.DRAIN_S)
                if self._relay.done() and self._relay.result():
                    return outcome
            elif error := self._relay.exception():
                raise error
            raise GuestError(Code.DATA_LOSS, "the copy was cut short: the guest has not sent, or taken, all of it")
        finally:
            finish.cancel()
            await asyncio.gather(finish, return_exceptions=True)


class _Pipe:
    """One end of a pipe, as a source and as a sink of shim/relay.py."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, context: Context, number: int, flags: int) -> "_Pipe":
        """The peer's descriptor `number`, opened anew. Raises SpecError unless it is a pipe."""
        path = f"/proc/{context.peer.pid}/fd/{number}"
        try:
            if not context.peer.pid or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise SpecError(f"descriptor {number} of process {context.peer.pid} is no pipe")
            return cls(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            raise SpecError(f"descriptor {number} of process {context.peer.pid}: {error.strerror}") from error

    async def read(self, limit: int) -> bytes:
        """See shim/relay.py, Source."""
        while True:
            try:
                return os.read(self._descriptor, limit)
            except BlockingIOError:
                await readable(self._descriptor)

    async def write(self, data: memoryview) -> None:
        """See shim/relay.py, Sink."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                await writable(self._descriptor)

    def close(self) -> None:
        """Close it, once."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _notes(outcome: archive_pb2.FinishResponse) -> list[str]:
    return [untrusted.plain(line, _NOTE_LENGTH) for line in outcome.notes[:_NOTES_MOST]]
