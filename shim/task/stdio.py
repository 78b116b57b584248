"""Carries a process's streams between the guest's connections and the host's FIFOs.

Output: nothing is dropped and nothing buffered beyond one piece; a reader that stops
reading stops the guest's writer, through vsock's credits and the process's own pipe.
The stream is over at the end frame, or with the connection when the machine is gone.
"""

import asyncio
import contextlib
import os
import socket
from typing import Final

from api.frames import END, FrameReader, header
from shim.errors import UnsupportedError
from shim.task.fifo import InputSource, OutputSink, open_input, open_output
from shim.task.logger import LoggerProcess, Loggers
from shim.task.logger_address import parse

_PIECE: Final = 256 << 10
# Frames that are passed on before everything else on the loop has its turn. A guest may make them a byte long, and send
# more of them than can be passed on: nothing here would ever wait.
_FRAMES_A_TURN: Final = 256


async def relay_output(connection: socket.socket, sink: OutputSink) -> None:
    """Copy from the guest to `sink` until the stream ends, then close both."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(_PIECE)
    frames = FrameReader()
    try:
        while not frames.ended:
            try:
                size = await loop.sock_recv_into(connection, buffer)
            except ConnectionError:  # the machine is gone: its exit is told by who watches it
                break
            if size == 0:
                break
            for number, piece in enumerate(frames.feed(memoryview(buffer)[:size]), start=1):
                await sink.write(piece)
                if number % _FRAMES_A_TURN == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
    finally:
        connection.close()
        sink.close()


async def relay_input(connection: socket.socket, source: InputSource) -> None:
    """Copy from `source` to the guest until CloseIO, or until the process takes no more, then close both."""
    gone = asyncio.create_task(_closed_by_peer(connection))
    copying = asyncio.create_task(_copy_input(connection, source))
    try:
        await asyncio.wait([gone, copying], return_when=asyncio.FIRST_COMPLETED)
        if copying.done() and not gone.done():
            copying.result()  # where the source could not be read there is no end for the guest to answer
            # The receiver of the end closes: until then the last bytes may still be on their way.
            await gone
    finally:
        for task in (gone, copying):
            task.cancel()
        await asyncio.gather(gone, copying, return_exceptions=True)
        connection.close()
        source.close()


async def _copy_input(connection: socket.socket, source: InputSource) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):  # the process closed its input: nobody listens any more
        while data := await source.read(_PIECE):
            await loop.sock_sendall(connection, header(len(data)) + data)
        await loop.sock_sendall(connection, END)


async def _closed_by_peer(connection: socket.socket) -> None:
    """Return when the guest has closed an input connection; it never sends anything on one."""
    with contextlib.suppress(ConnectionError):
        await asyncio.get_running_loop().sock_recv(connection, 1)


class ProcessStreams:
    """The open host ends of one process's streams and the tasks that carry them.

    `paths` are those of the task API; an empty one is no stream. A logger takes both kinds of
    output, and is only started by `open`.
    Raises HostError, SpecError or UnsupportedError where one cannot be opened; then none is left open.
    """

    def __init__(self, *, terminal: bool, stdin: str, stdout: str, stderr: str) -> None:
        self._terminal = terminal
        self._logger_address = parse(stdout)
        self._logger: LoggerProcess | None = None
        self._source: InputSource | None = None
        self._sinks: dict[str, OutputSink] = {}
        self._connections: list[socket.socket] = []
        self._inputs: set[asyncio.Task[None]] = set()
        self._outputs: set[asyncio.Task[None]] = set()
        if self._logger_address is not None:
            if not terminal and stderr not in ("", stdout):
                raise UnsupportedError(
                    f"standard output goes to the logger {stdout} and standard error to {stderr}: one logger takes both"
                )
            stdout = stderr = ""
        try:
            self._source = open_input(stdin) if stdin else None
            # A terminal has one stream for both kinds of output (contract 1.8).
            for name, path in (("stdout", stdout), ("stderr", "" if terminal else stderr)):
                if path:
                    self._sinks[name] = open_output(path)
        except BaseException:
            self._close_all()
            raise

    async def open(self, loggers: Loggers, name: str) -> None:
        """Start the logger, if they go to one, for the process `name`. Raises HostError or MissingPartError."""
        if self._logger_address is None:
            return
        self._logger = logger = await loggers.start(self._logger_address, name)
        self._sinks["stdout"] = OutputSink(logger.stdout, -1)
        if self._terminal:
            os.close(logger.stderr)
        else:
            self._sinks["stderr"] = OutputSink(logger.stderr, -1)

    @property
    def names(self) -> tuple[str, ...]:
        """Which of stdin, stdout and stderr there are."""
        return (("stdin",) if self._source else ()) + tuple(self._sinks)

    def connect(self, name: str, connection: socket.socket) -> None:
        """Begin to carry one stream over a connection that the guest has dialled for it."""
        self._connections.append(connection)
        if name == "stdin":
            assert self._source is not None
            self._inputs.add(asyncio.create_task(relay_input(connection, self._source), name=name))
        else:
            self._outputs.add(asyncio.create_task(relay_output(connection, self._sinks[name]), name=name))

    def finish_input(self) -> None:
        """CloseIO."""
        if self._source is not None:
            self._source.finish()

    async def drained(self) -> list[str]:
        """Return when all output is with its reader: what could not be written there, one line each."""
        if self._outputs:
            await asyncio.wait(self._outputs)
        ends = [(task.get_name(), task.exception()) for task in self._outputs if not task.cancelled()]
        return [f"{name}: {error}" for name, error in ends if error is not None]

    async def close(self) -> None:
        """Stop carrying, and close everything: what was not read by now is lost."""
        tasks = self._inputs | self._outputs
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_all()
        if self._logger is not None:
            await self._logger.end()

    def _close_all(self) -> None:
        for end in (self._source, *self._sinks.values(), *self._connections):
            if end is not None:
                end.close()
