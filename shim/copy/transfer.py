"""containerd's transfer service on the shim's socket: files of a container as tar, from and to streams of its client.

What there is: a ContainerPath to a WriteStream, and a ReadStream to a ContainerPath, whose directory is made where it
is missing; as nerdbox's shim serves it (docs/decisions/0031). The tar is made and read here, in threads of their own:
a client that speaks containerd's protocol knows no other format.
"""

import asyncio
import contextlib
import functools
import io
import itertools
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from google.protobuf.empty_pb2 import Empty

from api import archive_pb2, transfer_pb2
from api import transfer_types_pb2 as types
from api.transfer_ttrpc import TransferBase
from archive import ArchiveError
from archive.records import read
from shim.copy.carry import MOST, Copier, Pipe
from shim.copy.channels import Channel, StreamingService, as_type, is_type
from shim.copy.service import FilesService
from shim.errors import GuestError, HostError, NotFoundError, SpecError, UnsupportedError
from shim.log import Logger
from shim.task.container import Container
from ttrpc import Code, Context
from ttrpc.service import Service

_TAR: Final = "application/x-tar"
_PIECE: Final = 32 << 10
_Result = TypeVar("_Result")


def services(containers: Mapping[str, Container], log: Logger) -> list[Service]:
    """All services that copy files of these containers."""
    copier, streaming = Copier(containers, log), StreamingService()
    return [FilesService(copier), streaming, TransferService(copier, streaming)]


class TransferService(TransferBase):
    """See api/transfer.proto."""

    def __init__(self, copier: Copier, streaming: StreamingService) -> None:
        self._copier = copier
        self._streaming = streaming
        self._threads = ThreadPoolExecutor(MOST, "transfer")

    async def Transfer(self, request: transfer_pb2.TransferRequest, context: Context) -> Empty:
        with self._copier.statuses():
            if is_type(types.ContainerPath(), request.source) and is_type(types.WriteStream(), request.destination):
                to = as_type(types.WriteStream(), request.destination)
                with self._channel(to) as channel:
                    await self._out(as_type(types.ContainerPath(), request.source), channel)
                    await channel.finish()
            elif is_type(types.ReadStream(), request.source) and is_type(types.ContainerPath(), request.destination):
                source = as_type(types.ReadStream(), request.source)
                with self._channel(source) as channel:
                    await self._in(channel, as_type(types.ContainerPath(), request.destination))
                    await channel.finish()
            else:
                what = f"{request.source.type_url} to {request.destination.type_url}"
                raise UnsupportedError(f"a transfer from {what} is not supported")
        return Empty()

    @contextlib.contextmanager
    def _channel(self, end: types.ReadStream | types.WriteStream) -> Iterator[Channel]:
        """The client's stream; lost to it, and to the thread that waits for it, unless the block ends well."""
        if end.media_type != _TAR:
            raise UnsupportedError(f"media type {end.media_type!r} is not supported, {_TAR} is")
        channel = self._streaming.take(end.stream)
        try:
            yield channel
        except BaseException:
            channel.lose()
            raise

    async def _out(self, source: types.ContainerPath, channel: Channel) -> None:
        path = _clean(source.path)
        found = await self._look(source.container_id, path)
        alone = source.no_walk and stat.S_ISDIR(found.mode)
        loop = asyncio.get_running_loop()

        def work(reading: int) -> None:
            from shim.copy import tar  # only who transfers needs it, and it is dear

            sender = _Sender(lambda data: _in_loop(loop, channel.send(data)))
            with io.BufferedReader(io.FileIO(reading), _PIECE) as pipe:
                records = itertools.islice(read(pipe.read), 1) if alone else read(pipe.read)
                tar.to_tar(records, sender.write, posixpath.basename(path))
            sender.flush()

        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        copying = self._copier.reading(source.container_id, path, Pipe(writing), follow=False)
        async with _closed_unless_passed_on(reading) as thread_end, copying as finish:
            working = self._in_thread(functools.partial(work, thread_end.pass_on()))
            if alone:
                await working  # the guest is hung up upon
            else:
                await _both(working, finish())

    async def _in(self, channel: Channel, destination: types.ContainerPath) -> None:
        directory, missing = await self._existing(destination.container_id, _clean(destination.path))
        loop = asyncio.get_running_loop()

        def work(writing: int) -> None:
            from shim.copy import tar

            stream = io.BufferedReader(_Received(lambda: _in_loop(loop, channel.receive())), _PIECE)
            with io.BufferedWriter(io.FileIO(writing, "w"), _PIECE) as pipe:
                tar.from_tar(stream, pipe.write, owners=destination.preserve_ownership, below=missing)

        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        copying = self._copier.writing(destination.container_id, directory, b"", Pipe(reading))
        async with _closed_unless_passed_on(writing) as thread_end, copying as finish:
            await _both(self._in_thread(functools.partial(work, thread_end.pass_on())), finish())

    def _in_thread(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Begin `work`. Whoever gives it up hears nothing of it any more."""
        working = asyncio.ensure_future(_heard(asyncio.get_running_loop().run_in_executor(self._threads, work)))
        working.add_done_callback(lambda done: done.cancelled() or done.exception())
        return working

    async def _look(self, container_id: str, path: bytes, *, follow: bool = False) -> archive_pb2.LookResponse:
        try:
            return await self._copier.look(container_id, path, follow=follow)
        except GuestError as error:
            if error.status is Code.NOT_FOUND:
                raise NotFoundError(str(error)) from error
            raise

    async def _existing(self, container_id: str, path: bytes) -> tuple[bytes, bytes]:
        """How much of a path is there, and is a directory; and what of it is to be made."""
        missing = b""
        while True:
            try:
                found = await self._look(container_id, path, follow=True)
            except NotFoundError:
                if path == b"/":
                    raise
                path, _, name = path.rpartition(b"/")
                path, missing = path or b"/", name + (b"/" + missing if missing else b"")
                continue
            if not stat.S_ISDIR(found.mode):
                raise SpecError(f"{os.fsdecode(path)} is no directory")
            return path, missing


class _End:
    """A pipe's end, on its way to a thread, to which it blocks."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def pass_on(self) -> int:
        os.set_blocking(self.descriptor, True)
        descriptor, self.descriptor = self.descriptor, -1
        return descriptor


@contextlib.asynccontextmanager
async def _closed_unless_passed_on(descriptor: int) -> AsyncIterator[_End]:
    end = _End(descriptor)
    try:
        yield end
    finally:
        if end.descriptor >= 0:
            os.close(end.descriptor)


class _Sender:
    """Where a thread writes to: in pieces that are worth a message."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._buffer = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        self._buffer += data
        if len(self._buffer) >= _PIECE:
            self.flush()

    def flush(self) -> None:
        data = bytes(self._buffer)
        self._buffer.clear()
        self._send(data)


class _Received(io.RawIOBase):
    """Where a thread reads from."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        super().__init__()
        self._receive = receive
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = memoryview(self._receive())
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _in_loop(loop: asyncio.AbstractEventLoop, work: Coroutine[object, object, _Result]) -> _Result:
    """Done by the loop, while this thread waits."""
    return asyncio.run_coroutine_threadsafe(work, loop).result()


async def _heard(working: Awaitable[None]) -> None:
    """Errors of the thread's as this package has them."""
    try:
        await working
    except ArchiveError as error:
        raise HostError(str(error)) from error


async def _both(working: "asyncio.Future[None]", finishing: Awaitable[object]) -> None:
    """The thread's work and the guest's. The guest's error explains that of the thread, whose pipe it has closed."""
    finish = asyncio.ensure_future(finishing)
    try:
        await asyncio.wait((working, finish), return_when=asyncio.FIRST_EXCEPTION)
        if working.done() and working.exception() is not None and not finish.done():
            await asyncio.wait((finish,), timeout=1)
        if finish.done():
            finish.result()
        if working.done():
            working.result()
        await asyncio.gather(working, finish)
    finally:
        finish.cancel()
        await asyncio.gather(finish, return_exceptions=True)


def _clean(path: str) -> bytes:
    return b"/" + posixpath.normpath(b"/" + os.fsencode(path)).lstrip(b"/")
