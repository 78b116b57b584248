"""A process's streams: the host's FIFOs, or a logger, and the tasks that carry them from and to the guest."""

import asyncio
import os
import socket

from shim.errors import UnsupportedError
from shim.relay import relay_input, relay_output
from shim.task.fifo import InputSource, OutputSink, open_input, open_output
from shim.task.logger import LoggerProcess, Loggers
from shim.task.logger_address import parse


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
        self._inputs: set[asyncio.Task[bool]] = set()
        self._outputs: set[asyncio.Task[bool]] = set()
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
