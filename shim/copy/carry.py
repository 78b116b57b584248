"""Bytes between a pipe and a stream of the guest, for as long as one copy takes.

It believes neither side: what the guest sends is looked at by whoever reads the pipe. When that one
goes away, its call is cancelled, and with it the stream, by which the guest's side ends, too.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Final

from api import archive_pb2
from shim import deadlines, untrusted
from shim.descriptors import readable, writable
from shim.errors import GuestError, NotFoundError, QemuboxError, ResourceError
from shim.log import Logger
from shim.relay import relay_input, relay_output
from shim.task.container import Container
from ttrpc import Code, StatusError

# At once, of one container. Where streams are virtio-serial ports there are 62 of them.
MOST: Final = 8
_NOTES_MOST: Final = 100
_NOTE_LENGTH: Final = 400

Finish = Callable[[], Awaitable[list[str]]]
"""Returns when all is carried, with what the user is to hear. Raises GuestError, MachineError, OSError of the pipe."""


class Copier:
    """The copies of a shim's containers, which are those of the task service, by id."""

    def __init__(self, containers: Mapping[str, Container], log: Logger) -> None:
        self._containers = containers
        self._log = log
        self._copies = 0

    def _container(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFoundError(f"container {container_id} has no task", hint="start it")
        return container

    async def look(self, container_id: str, path: bytes, *, follow: bool) -> archive_pb2.LookResponse:
        """What is at a path. Raises NotFoundError, GuestError, MachineError."""
        guest = self._container(container_id).sandbox.guest
        asked = archive_pb2.LookRequest(container_id=container_id, path=path, follow=follow)
        return await guest.call(guest.archive.Look(asked), deadline_s=deadlines.GUEST_CALL_S)

    @contextlib.asynccontextmanager
    async def reading(self, container_id: str, path: bytes, pipe: "Pipe", *, follow: bool) -> AsyncIterator[Finish]:
        """Have the guest send what is at `path` into `pipe`, which is closed at the end of the block.

        Raises NotFoundError, ResourceError, GuestError, MachineError.
        """
        async with _Copy("stdout", pipe) as copy:
            with self._counted():
                container = self._container(container_id)
                guest = container.sandbox.guest
                asked = archive_pb2.ReadRequest(container_id=container_id, path=path, follow=follow)
                async with container.sandbox.streams(copy, asked.streams):
                    begun = await guest.call(guest.archive.Read(asked), deadline_s=deadlines.GUEST_CALL_S)

                async def finish() -> list[str]:
                    last = guest.archive.Finish(archive_pb2.FinishRequest(copy=begun.copy))
                    return _notes(await copy.carried(guest.call(last, deadline_s=None)))

                yield finish

    @contextlib.asynccontextmanager
    async def writing(self, container_id: str, directory: bytes, name: bytes, pipe: "Pipe") -> AsyncIterator[Finish]:
        """Have the guest put what comes out of `pipe` into `directory`, its first entry as `name`. As `reading`.

        What comes into a container that has ended is on the host before `finish` returns.
        """
        async with _Copy("stdin", pipe) as copy:
            with self._counted():
                container = self._container(container_id)
                guest = container.sandbox.guest
                asked = archive_pb2.WriteRequest(container_id=container_id, directory=directory, name=name)
                async with container.sandbox.streams(copy, asked.streams):
                    begun = await guest.call(guest.archive.Write(asked), deadline_s=deadlines.GUEST_CALL_S)

                async def finish() -> list[str]:
                    last = guest.archive.Finish(archive_pb2.FinishRequest(copy=begun.copy))
                    notes = _notes(await copy.carried(guest.call(last, deadline_s=None)))
                    await container.copied_into()
                    return notes

                yield finish

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
    def statuses(self) -> Iterator[None]:
        """Turn an error of the tree in shim/errors.py, or of a pipe, into a status."""
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

    def __init__(self, name: str, pipe: "Pipe") -> None:
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
                # What goes in ends with its last record. The guest may have read that, and gone, before we are told
                # that the pipe has ended: it has taken all when it says so.
                if self._relay.done() and (self._relay.result() or self.names == ("stdin",)):
                    return outcome
            elif error := self._relay.exception():
                raise error
            raise GuestError(Code.DATA_LOSS, "the copy was cut short: the guest has not sent, or taken, all of it")
        finally:
            finish.cancel()
            await asyncio.gather(finish, return_exceptions=True)


class Pipe:
    """One end of a pipe, as a source and as a sink of shim/relay.py."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

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
