"""What a child of vminitd does that copies files of a container: one descriptor into a stream, or a stream into one.

It is a fork that never comes back: what it does may wait for a disk, for a volume's host, or for a file system that is
frozen, and it can be killed. It holds nothing of vminitd's but what it was given. Everything it touches it was given
open, below the container's root directory, so no path of the container leads it anywhere else.
"""

import gc
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from api.frames import END, HEADER, FrameReader
from archive import ArchiveError, CutError
from archive.errors import said
from archive.pack import pack
from archive.records import read
from archive.unpack import ALL, unpack
from ttrpc import Code
from vminitd import log
from vminitd.libc import join_user_namespace
from vminitd.streams import FRAME

NOTES_MOST = 100
_NOTES_BYTES = 24 << 10
_PIECE = 64 << 10
_FULL = frozenset({28, 122})  # ENOSPC, EDQUOT


class Job(NamedTuple):
    """`place` is the open file or directory; `name` what the stream's first entry becomes in it, when it is written.

    `user_namespace` is the container's, or -1 where it is the machine's: there owners are what the container sees.
    """

    connection: socket.socket
    place: int
    writes: bool
    name: bytes
    user_namespace: int


class HostLeft(Exception):
    """Nobody takes any more of it, or sends it."""


class Notes:
    """What is told of single files, within bounds."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._bytes = 0
        self._more = 0

    def tell(self, line: str) -> None:
        size = len(line.encode(errors="replace"))
        if len(self.lines) >= NOTES_MOST - 1 or self._bytes + size > _NOTES_BYTES:
            self._more += 1
            return
        self._bytes += size
        self.lines.append(line)

    def all(self) -> list[str]:
        return [*self.lines, *([f"and {self._more} more like these"] if self._more else [])]


def run(job: Job, outcome: int) -> NoReturn:
    """Do it, write JSON of how it went into the pipe `outcome`, and end. The first thing after the fork."""
    try:
        signal.set_wakeup_fd(-1)
        gc.disable()
        _keep({0, 1, 2, outcome, job.place, job.connection.fileno(), job.user_namespace})
        os.write(outcome, json.dumps(_outcome(job)).encode())
    except Exception as error:  # noqa: BLE001  nobody is above us to hear of it
        log.failure("a copy's process broke", error)
    finally:
        os._exit(0)


def _keep(descriptors: set[int]) -> None:
    """Close all others: the ends of processes' pipes among them, whose readers would never see an end."""
    last = -1
    for descriptor in sorted(each for each in descriptors if each >= 0):
        if descriptor > last + 1:  # of an empty range, Python (3.11) makes one without an end
            os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, os.sysconf("SC_OPEN_MAX"))


def _outcome(job: Job) -> dict[str, object]:
    """{"notes": lines} or {"code": of a status, "message": text}."""
    notes = Notes()
    try:
        carry(job, notes.tell)
    except CutError as error:
        return _failure(Code.ABORTED, str(error))
    except HostLeft:
        return _failure(Code.CANCELLED, "nobody waits for the copy any more")
    except ArchiveError as error:
        return _failure(Code.FAILED_PRECONDITION, str(error))
    except OSError as error:
        full = error.errno in _FULL
        return _failure(Code.RESOURCE_EXHAUSTED if full else Code.FAILED_PRECONDITION, said(error))
    except Exception as error:  # noqa: BLE001  it is told, and this process ends
        return _failure(Code.INTERNAL, f"{type(error).__name__}: {error}")
    return {"notes": notes.all()}


def _failure(code: Code, message: str) -> dict[str, object]:
    return {"code": code.value, "message": message}


def carry(job: Job, tell: Callable[[str], None]) -> None:
    """All of the copy. Raises what `pack` and `unpack` do, and HostLeft."""
    if job.user_namespace >= 0:
        join_user_namespace(job.user_namespace)
    if job.writes:
        os.umask(0)
        unpack(read(FramedInput(job.connection).read), job.place, job.name, ALL, tell)
    else:
        output = FramedOutput(job.connection)
        pack(job.place, output.write, tell)
        output.end()


class FramedOutput:
    """Bytes into the frames of a stream (api/frames.py), on a connection that is not blocking."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = memoryview(bytearray(FRAME))
        self._filled = HEADER.size

    def write(self, data: bytes | memoryview) -> None:
        """Raises HostLeft."""
        rest = memoryview(data)
        while rest:
            size = min(len(rest), FRAME - self._filled)
            self._buffer[self._filled : self._filled + size] = rest[:size]
            self._filled += size
            rest = rest[size:]
            if self._filled == FRAME:
                self._flush()

    def end(self) -> None:
        """There is no more; returns when the host has all of it, which it says by closing."""
        if self._filled > HEADER.size:
            self._flush()
        self._send(memoryview(END))
        while True:
            try:
                self._connection.recv(1)
                return
            except BlockingIOError:
                _wait(self._connection, select.POLLIN)
            except ConnectionError:
                return

    def _flush(self) -> None:
        HEADER.pack_into(self._buffer, 0, self._filled - HEADER.size)
        self._send(self._buffer[: self._filled])
        self._filled = HEADER.size

    def _send(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self._connection.send(data) :]
            except BlockingIOError:
                _wait(self._connection, select.POLLOUT)
            except OSError as error:
                raise HostLeft from error


class FramedInput:
    """Bytes out of the frames of a stream."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._data = bytearray()
        self._buffer = bytearray(_PIECE)

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only where the stream has ended or is cut short."""
        while len(self._data) < size and not self._frames.ended:
            self._receive()
        taken = bytes(memoryview(self._data)[:size])
        del self._data[:size]
        return taken

    def _receive(self) -> None:
        try:
            got = self._connection.recv_into(self._buffer)
        except BlockingIOError:
            _wait(self._connection, select.POLLIN)
            return
        except OSError as error:
            raise HostLeft from error
        if not got:
            raise HostLeft
        for piece in self._frames.feed(memoryview(self._buffer)[:got]):
            self._data += piece


def _wait(connection: socket.socket, event: int) -> None:
    poll = select.poll()
    poll.register(connection, event)
    poll.poll()
