"""The host's ends of a process's standard streams: containerd's FIFOs, files, or nothing.

Each FIFO is held open at both ends. Were the shim the only writer, or the only reader,
the other side's restart would look like an end of file or kill the stream with SIGPIPE;
so containerd and its clients may come and go (contract 1.8).
"""

import asyncio
import os
import stat
from pathlib import Path
from urllib.parse import unquote

from shim.descriptors import readable, writable
from shim.errors import HostError, UnsupportedError


class OutputSink:
    """Where output goes. Not for two writers at once."""

    def __init__(self, fd: int, keep_fd: int) -> None:
        self._fd = fd
        self._keep_fd = keep_fd

    async def write(self, data: memoryview) -> None:
        """Write all of `data`, waiting for the reader as long as it takes."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await writable(self._fd)

    def close(self) -> None:
        """Close both ends, once; a reader sees the end of file once it has read what is there."""
        _close(self._fd, self._keep_fd)
        self._fd = self._keep_fd = -1


class InputSource:
    """Where input comes from. It ends only after `finish`, never by itself."""

    def __init__(self, fd: int, keep_fd: int) -> None:
        self._fd = fd
        self._keep_fd = keep_fd
        self._finishing = asyncio.Event()

    def finish(self) -> None:
        """CloseIO: what is in the FIFO by now still goes through, then the stream ends."""
        self._finishing.set()

    async def read(self, limit: int) -> bytes:
        """The next bytes, at most `limit`; empty at the end."""
        while True:
            try:
                # With our own write end open, a FIFO without data says EAGAIN and never the end of file.
                data = os.read(self._fd, limit)
            except BlockingIOError:
                if self._finishing.is_set():
                    return b""
                await self._readable_or_finishing()
                continue
            return data

    async def _readable_or_finishing(self) -> None:
        waits = [
            asyncio.create_task(readable(self._fd)),
            asyncio.create_task(self._finishing.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def close(self) -> None:
        """Close both ends, once."""
        _close(self._fd, self._keep_fd)
        self._fd = self._keep_fd = -1


def open_output(address: str) -> OutputSink:
    """Open a path or `file://` URI of Create or Exec for writing.

    A FIFO is opened at both ends, anything else for appending; only a `file://` URI makes
    the file, and its directory, as in containerd's own shim: where a FIFO has been named
    and is gone, nobody would read what went into a file instead.
    Raises UnsupportedError for another scheme, HostError where it cannot be opened.
    """
    scheme, path = _parts(address)
    try:
        if _is_fifo(path):
            keep_fd, fd = _open_both_ends(path)
            return OutputSink(fd, keep_fd)
        if scheme == "file":
            path.parent.mkdir(parents=True, exist_ok=True)
        create = os.O_CREAT if scheme == "file" else 0
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        return OutputSink(os.open(path, flags | create, 0o644), -1)
    except OSError as error:
        raise HostError(f"cannot open {address} for the container's output: {error.strerror}") from error


def open_input(address: str) -> InputSource:
    """Open a path of Create or Exec for reading. Raises like open_output."""
    _, path = _parts(address)
    try:
        if _is_fifo(path):
            return InputSource(*_open_both_ends(path))
        return InputSource(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), -1)
    except OSError as error:
        raise HostError(f"cannot open {address} for the container's input: {error.strerror}") from error


def _parts(address: str) -> tuple[str, Path]:
    """The scheme, empty for a plain path, and the path, of which a URI has its odd characters escaped."""
    scheme, is_uri, rest = address.partition("://")
    if not is_uri:
        return "", Path(address)
    if scheme not in ("file", "fifo"):
        raise UnsupportedError(
            f"standard stream {address}: {scheme}:// is not supported here (a logger is named by standard output)"
        )
    return scheme, Path(unquote(rest.partition("?")[0]))


def _open_both_ends(path: Path) -> tuple[int, int]:
    """The read end and the write end of a FIFO; with the other end open, neither waits for anyone."""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return reader, os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except BaseException:
        os.close(reader)
        raise


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def _close(*fds: int) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)
