"""The command `qemubox cp`: packs or unpacks on this side of a pipe, whose other side is the shim's.

A thread does the work on files, while the loop hears what the shim says. Whichever ends first ends the other: the shim
hangs up the pipe when the guest has failed, and the call is cancelled when the work has. After ^C the thread has a
moment to remove the file that it was writing.
"""

import asyncio
import contextlib
import os
import posixpath
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, TypeVar, cast

from google.protobuf.message import Message

from api import files_pb2
from api.files_ttrpc import FilesStub
from archive import ArchiveError, CutError
from archive.errors import said
from archive.pack import pack
from archive.records import Entry, read
from archive.unpack import ALL, HARMLESS, unpack
from shim import deadlines
from shim.copy import address, tar
from shim.copy.connection import connection
from shim.copy.place import Landing, Place, There, check, landing, parse
from shim.errors import GuestError, HostError, NotFoundError, QemuboxError, SpecError
from ttrpc import Code, StatusError, Stream

_BUFFER: Final = 1 << 20
_LINKS_MOST: Final = 40
# For the thread to come to an end once its pipe is hung up. One that is at standard input or output may never do that.
_GRACE_S: Final = 5.0
_INTERRUPTED: Final = 130

Progress = files_pb2.Progress
Work = Callable[[BinaryIO], None]
_Request = TypeVar("_Request", bound=Message)


def run(state_dir: Path, source: str, destination: str, *, namespace: str, follow: bool, archive: bool) -> int:
    """Copy; the exit status. Raises what is wrong, of shim/errors.py."""
    places = parse(source), parse(destination)
    check(*places)
    shim = address.find(state_dir, places[0].container or places[1].container, namespace)
    status = 0
    try:
        _run(shim, *places, follow=follow, archive=archive)
    except KeyboardInterrupt:
        _say("interrupted")
        status = _INTERRUPTED
    except QemuboxError as error:
        if not _Thread.working:
            raise
        _say(str(error))
        status = 1
    if _Thread.working:
        # At standard input or output, for as long as somebody else likes: Python would abort over its buffers.
        os._exit(status)
    return status


def _run(shim: address.Address, source: Place, destination: Place, *, follow: bool, archive: bool) -> None:
    try:
        asyncio.run(_copy(shim, source, destination, follow=follow, archive=archive))
    except ArchiveError as error:
        raise HostError(f"{source} to {destination}: {error}") from error
    except OSError as error:
        raise HostError(f"{source} to {destination}: {said(error)}") from error
    except StatusError as error:
        raise GuestError(error.code, error.message) from error


async def _copy(shim: address.Address, source: Place, destination: Place, *, follow: bool, archive: bool) -> None:
    async with connection(shim.socket) as client:
        remote = _Remote(FilesStub(client), shim.id)
        if source.container:
            await _out(remote, source, destination, follow=follow, archive=archive)
        elif source.is_stream:
            await _stream_in(remote, destination, archive=archive)
        else:
            await _in(remote, source, destination, follow=follow, archive=archive)


class _Remote:
    """The container."""

    def __init__(self, files: FilesStub, container_id: str) -> None:
        self.files = files
        self._id = container_id

    async def look(self, path: bytes, *, follow: bool) -> files_pb2.LookResponse | None:
        """None where nothing is."""
        request = files_pb2.LookRequest(container_id=self._id, path=path, follow=follow)
        try:
            return await self.files.Look(request, timeout_s=deadlines.GUEST_CALL_S + deadlines.DIAL_S)
        except StatusError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            return None

    async def there(self, place: Place) -> There:
        """What is where something is to be copied to: a link at its end is followed, to where nothing is, too."""
        path = place.clean
        for _ in range(_LINKS_MOST):
            found = await self.look(path, follow=False)
            if found is None or not stat.S_ISLNK(found.mode):
                return There(path, found is not None, found is not None and stat.S_ISDIR(found.mode))
            led = await self.look(path, follow=True)
            if led is not None and stat.S_ISDIR(led.mode):
                return There(path, exists=True, is_directory=True)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), found.target))
        raise SpecError(f"{place}: too many symbolic links")

    def read(self, path: bytes, descriptor: int, *, follow: bool) -> "Stream[files_pb2.ReadRequest, Progress]":
        return self.files.Read(
            files_pb2.ReadRequest(container_id=self._id, path=path, follow=follow, descriptor=descriptor)
        )

    def write(self, where: Landing, descriptor: int) -> "Stream[files_pb2.WriteRequest, Progress]":
        return self.files.Write(
            files_pb2.WriteRequest(
                container_id=self._id, directory=where.directory, name=where.name, descriptor=descriptor
            )
        )


async def _out(remote: _Remote, source: Place, destination: Place, *, follow: bool, archive: bool) -> None:
    follow = follow or source.says_directory
    found = await remote.look(source.clean, follow=follow)
    if found is None:
        raise NotFoundError(f"{source}: no such file or directory")
    is_directory = stat.S_ISDIR(found.mode)
    reading, writing = os.pipe()
    if destination.is_stream:
        if source.says_directory and not is_directory:
            raise SpecError(f"{source} is not a directory")
        if sys.stdout.isatty():
            raise SpecError("a tar archive is not written to a terminal", hint="redirect standard output")

        def work(pipe: BinaryIO) -> None:
            with open(sys.stdout.fileno(), "wb", buffering=_BUFFER, closefd=False) as out:
                tar.to_tar(read(pipe.read), out.write, b"" if source.contents else source.name)
    else:
        where = landing(source, is_directory, destination, _there(destination))
        directory = os.open(where.directory, os.O_PATH | os.O_DIRECTORY)

        def work(pipe: BinaryIO) -> None:
            mask = os.umask(0)
            try:
                unpack(read(pipe.read), directory, where.name, ALL if archive else HARMLESS, _say)
            finally:
                os.umask(mask)

    grace_s = 0 if destination.is_stream else _GRACE_S
    call = remote.read(source.clean, writing, follow=follow)
    await _carry(call, work, ours=reading, theirs=writing, mode="rb", grace_s=grace_s)


async def _in(remote: _Remote, source: Place, destination: Place, *, follow: bool, archive: bool) -> None:
    flags = os.O_PATH | (0 if follow or source.says_directory else os.O_NOFOLLOW)
    place = os.open(source.path, flags)
    is_directory = stat.S_ISDIR(os.fstat(place).st_mode)
    where = landing(source, is_directory, destination, await remote.there(destination))

    def alter(entry: Entry) -> Entry:
        return entry if archive else entry._replace(uid=0, gid=0)

    await _write(remote, where, lambda pipe: pack(place, pipe.write, _say, alter))


async def _stream_in(remote: _Remote, destination: Place, *, archive: bool) -> None:
    there = await remote.there(destination)
    if not there.is_directory:
        raise SpecError(f"{destination} is no directory that exists, into which an archive could be unpacked")
    if sys.stdin.isatty():
        raise SpecError("a tar archive is not read from a terminal", hint="redirect standard input")
    await _write(
        remote, Landing(there.path, b""), lambda pipe: tar.from_tar(sys.stdin.buffer, pipe.write, owners=archive)
    )


async def _write(remote: _Remote, where: Landing, work: Work) -> None:
    reading, writing = os.pipe()
    # Nothing of ours is half done where the thread is left behind.
    await _carry(remote.write(where, reading), work, ours=writing, theirs=reading, mode="wb", grace_s=0)


def _there(place: Place) -> There:
    """What is on the host where something is to be copied to, as _Remote.there."""
    path = place.path.rstrip(b"/") or b"/"
    if place.contents and path.endswith(b"/."):
        path = path[:-2] or b"/"
    for _ in range(_LINKS_MOST):
        try:
            if os.path.isdir(path):
                return There(path, exists=True, is_directory=True)
            target = os.readlink(path)
        except FileNotFoundError:
            return There(path, exists=False, is_directory=False)
        except OSError:  # it is no link
            return There(path, os.path.lexists(path), is_directory=False)
        path = os.path.join(os.path.dirname(path), target)
    raise SpecError(f"{place}: too many symbolic links")


class _Thread:
    """Work on files beside the loop: `done` has its end. It does not keep the process from ending."""

    working: ClassVar[bool] = False
    """Whether it still is at work; a command has one."""

    def __init__(self, work: Work, descriptor: int, mode: str) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[BaseException | None] = self._loop.create_future()
        _Thread.working = True
        threading.Thread(target=self._run, args=(work, descriptor, mode), daemon=True).start()

    def _run(self, work: Work, descriptor: int, mode: str) -> None:
        failure: BaseException | None = None
        try:
            with open(descriptor, mode, buffering=_BUFFER) as pipe:
                work(cast("BinaryIO", pipe))
        except BaseException as error:  # noqa: BLE001 - raised in the loop
            failure = error
        _Thread.working = False
        with contextlib.suppress(RuntimeError):  # the loop has ended: after ^C nobody waits for ever
            self._loop.call_soon_threadsafe(self._settle, failure)

    def _settle(self, failure: BaseException | None) -> None:
        if not self.done.done():
            self.done.set_result(failure)


async def _carry(
    call: "Stream[_Request, Progress]", work: Work, *, ours: int, theirs: int, mode: str, grace_s: float
) -> None:
    """Have `work` done on `ours`, one end of a pipe, while the shim has the other. Raises what went wrong first.

    Work that has to be given up gets `grace_s` to clean up after itself.
    """
    async with call as stream:
        if await stream.receive() is None:
            raise StatusError(Code.INTERNAL, "the shim has ended the copy before it began")
        os.close(theirs)  # the shim has it open by now
        thread = _Thread(work, ours, mode)
        answer = asyncio.ensure_future(_rest(stream))
        try:
            await asyncio.wait((thread.done, answer), return_when=asyncio.FIRST_COMPLETED)
            if thread.done.done() and (failure := thread.done.result()) is not None:
                raise await _reason(failure, answer)
            notes = await answer
            failure = await thread.done
        except BaseException:
            stream.cancel()
            answer.cancel()
            await asyncio.wait((thread.done,), timeout=grace_s)
            raise
    if failure is not None:
        raise failure
    for line in notes:
        _say(line)


async def _reason(failure: BaseException, answer: "asyncio.Future[list[str]]") -> BaseException:
    """The work that finds its pipe hung up has not failed by itself: the shim says why."""
    if isinstance(failure, (CutError, BrokenPipeError)):
        await asyncio.wait((answer,), timeout=_GRACE_S)
        if answer.done() and not answer.cancelled() and (error := answer.exception()) is not None:
            return error
    return failure


async def _rest(stream: "Stream[_Request, Progress]") -> list[str]:
    """What the shim says at the end."""
    notes: list[str] = []
    done = False
    async for progress in stream:
        notes += progress.notes
        done = done or progress.done
    if not done:
        raise StatusError(Code.INTERNAL, "the shim has ended the copy without a word")
    return notes


def _say(line: str) -> None:
    print(f"qemubox: {line}", file=sys.stderr, flush=True)
