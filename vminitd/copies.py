"""Copies of files into and out of one container, each by a child of its own (`copying`), and what ends them.

A path is looked up as the container's first process sees it, through its mounts (/proc/PID/root), while that lives, and
in the container's root file system afterwards. What the lookup opens is given to the child, which never looks one up.

A paused container is read from; what would be written to it is refused, and a copy that the pause has caught waits, as
the container does, for deadlines.COPY_PAUSED at most. The end of the first process ends what is being written, since
what the container has written by then is what stays of it.
"""

import asyncio
import json
import os
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from ttrpc import Code, StatusError
from vminitd import deadlines, log
from vminitd.errors import GuestError, KernelError, RequestError, StateError, UnknownError
from vminitd.launch import Machinery
from vminitd.process import Process
from vminitd.rootfs import Rootfs
from vminitd.state import State

_OUTCOME = 64 << 10  # as much as a pipe holds
_LIVES = frozenset({State.CREATED, State.STARTING, State.RUNNING, State.PAUSED})


class Outcome(NamedTuple):
    """What the user hears of files that were not copied as they are; whether the first process had ended before."""

    notes: tuple[str, ...]
    stopped: bool


class Found(NamedTuple):
    """What is at a path: st_mode, and the target of a symbolic link."""

    mode: int
    target: bytes


class Copy:
    """One that is under way. `finished` is set when its child has ended, or cannot be made to."""

    def __init__(self, pid: int, connection: socket.socket, *, writes: bool, stopped: bool) -> None:
        self.pid = pid
        self.writes = writes
        self.stopped = stopped
        self.finished: asyncio.Future[Outcome | GuestError | StatusError] = asyncio.get_running_loop().create_future()
        self.gone = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None
        self._connection = connection

    def kill(self, why: GuestError) -> None:
        """End it: its user hears of `why`."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.settle(why)

    def settle(self, how: Outcome | GuestError | StatusError) -> None:
        """It is over, for its user: the first word counts. The host is told by the end of the connection."""
        if not self.finished.done():
            self.finished.set_result(how)
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Copies:
    """Those of one container."""

    def __init__(self, machinery: Machinery, init: Process, rootfs: Rootfs) -> None:
        self._machinery = machinery
        self._init = init
        self._rootfs = rootfs
        self._copies: set[Copy] = set()
        self._following: set[asyncio.Task[None]] = set()

    async def look(self, path: bytes, *, follow: bool) -> Found:
        """What is at `path`. Raises UnknownError, KernelError."""
        root = self._root()
        return await asyncio.to_thread(_look, root, path, follow=follow)

    async def read(self, path: bytes, token: bytes, *, follow: bool) -> Copy:
        """Begin to send what is at `path` by the stream `token`. Raises UnknownError, KernelError."""
        root = self._root()
        place = await _in_thread(lambda: _open(root, path, follow=follow))
        return await self._begin(place, token, writes=False, name=b"")

    async def write(self, directory: bytes, name: bytes, token: bytes) -> Copy:
        """Begin to put what comes by the stream `token` into `directory`, its first entry as `name`.

        Raises UnknownError, RequestError, StateError where the container is paused, KernelError.
        """
        self._require_writable()
        if b"/" in name or name in (b".", b".."):
            raise RequestError(f"{os.fsdecode(name)!r} is no name for a copy")
        root = self._root()
        place = await _in_thread(lambda: _open_directory(root, directory))
        return await self._begin(place, token, writes=True, name=name)

    def _require_writable(self) -> None:
        if self._init.state is State.PAUSED:
            raise StateError(f"{self._init} is paused, and nothing can be written to it: resume it first")

    async def _begin(self, place: int, token: bytes, *, writes: bool, name: bytes) -> Copy:
        from vminitd import copying  # most machines never need it

        user_namespace = -1
        try:
            connection = await self._machinery.dial(token)
            try:
                if writes:
                    self._require_writable()
                user_namespace = self._user_namespace()
                reading, writing = os.pipe2(os.O_CLOEXEC)
                pid = os.fork()
            except BaseException:
                connection.close()
                raise
            if pid == 0:
                copying.run(copying.Job(connection, place, writes, name, user_namespace), writing)
            ended = self._machinery.reaper.expect(pid)
            os.close(writing)
        finally:
            os.close(place)
            if user_namespace >= 0:
                os.close(user_namespace)
        copy = Copy(pid, connection, writes=writes, stopped=self._init.state not in _LIVES)
        self._copies.add(copy)
        task = asyncio.create_task(self._follow(copy, ended, reading), name=f"copy of {self._init}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        return copy

    async def _follow(self, copy: Copy, ended: asyncio.Future[int], reading: int) -> None:
        status = await ended
        try:
            copy.settle(_outcome(os.read(reading, _OUTCOME), status, stopped=copy.stopped))
        finally:
            os.close(reading)
            self._copies.discard(copy)
            copy.gone.set()

    def _root(self) -> int:
        """The container's root directory, open. Raises KernelError."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            if self._init.pid and self._init.state in _LIVES:
                with suppress(OSError):  # it is ending
                    return os.open(f"/proc/{self._init.pid}/root", flags)
            return os.open(self._rootfs.path, flags)
        except OSError as error:
            raise KernelError(f"cannot open the root directory of {self._init}: {error.strerror}") from error

    def _user_namespace(self) -> int:
        """That of its first process, open; -1 where it has none of its own, or has ended."""
        if not self._init.pid or self._init.state not in _LIVES:
            return -1
        with suppress(OSError):
            path = f"/proc/{self._init.pid}/ns/user"
            if os.readlink(path) != os.readlink("/proc/self/ns/user"):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return -1

    def paused(self) -> None:
        """What is being written waits, for a while."""
        for copy in self._writing():
            error = StateError(f"{self._init} was paused for {deadlines.COPY_PAUSED:g} s while it was copied into")
            copy.timer = asyncio.get_running_loop().call_later(deadlines.COPY_PAUSED, copy.kill, error)

    def resumed(self) -> None:
        """It goes on."""
        for copy in self._writing():
            if copy.timer is not None:
                copy.timer.cancel()
                copy.timer = None

    def ended(self) -> None:
        """The first process has ended."""
        for copy in self._writing():
            copy.kill(StateError(f"{self._init} ended while it was copied into"))

    async def close(self) -> None:
        """End all, and wait until nothing of theirs holds the container's file systems."""
        copies = [*self._copies]
        for copy in copies:
            copy.kill(StateError(f"{self._init} was deleted while it was copied"))
        if copies:
            waits = [asyncio.create_task(copy.gone.wait()) for copy in copies]
            _, pending = await asyncio.wait(waits, timeout=deadlines.KILLED)
            for wait in pending:
                wait.cancel()
                log.error("a copy does not end", container=str(self._init))

    def _writing(self) -> list[Copy]:
        return [copy for copy in self._copies if copy.writes]


async def _in_thread(opened: Callable[[], int]) -> int:
    """A descriptor that a thread opens, which may wait for a volume's host; closed if nobody waits for it any more."""
    opening = asyncio.ensure_future(asyncio.to_thread(opened))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close_opened)
        raise


def _close_opened(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _open(root: int, path: bytes, *, follow: bool) -> int:
    """What is at `path` below the open `root`, which is closed. Blocks. Raises UnknownError, KernelError."""
    from archive.beneath import in_root

    try:
        return in_root(root, path, follow=follow)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnknownError(f"{os.fsdecode(path)}: {os.strerror(error.errno or 0)}") from error
    except (OSError, ValueError) as error:
        raise KernelError(f"{os.fsdecode(path)}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        os.close(root)


def _open_directory(root: int, path: bytes) -> int:
    place = _open(root, path, follow=True)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        os.close(place)
        raise RequestError(f"{os.fsdecode(path)} is no directory")
    return place


def _look(root: int, path: bytes, *, follow: bool) -> Found:
    place = _open(root, path, follow=follow)
    try:
        mode = os.fstat(place).st_mode
        return Found(mode, os.fsencode(os.readlink(b"", dir_fd=place)) if stat.S_ISLNK(mode) else b"")
    finally:
        os.close(place)


def _outcome(said: bytes, status: int, *, stopped: bool) -> Outcome | GuestError | StatusError:
    """What a child has left behind. Pure."""
    if not said:
        return KernelError(f"the process that copied has ended with status {status}")
    document = json.loads(said)
    if "code" in document:
        return StatusError(Code(document["code"]), document["message"])
    return Outcome(tuple(document["notes"]), stopped)
