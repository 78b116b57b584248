"""A process's standard input and output: pipes or a terminal on one side, connections to the host on the other.

Stdio.open      connects to the host, and makes pipes where the process is to have no terminal
child           what crun gets as 0, 1 and 2
begin           crun has succeeded: the streams are carried from here on
finish          the process has ended: returns when the host has all of its output
close           gives everything up
"""

import asyncio
import fcntl
import os
import socket
from collections.abc import Collection
from typing import NamedTuple

from vminitd import deadlines, log
from vminitd.crun import ChildStreams
from vminitd.dial import TOKEN_SIZE, Dial, dial_all
from vminitd.errors import RequestError, StateError
from vminitd.streams import PIPE, Input, Output
from vminitd.terminal import HeldTerminal, resize


class Wish(NamedTuple):
    """What the shim wants for a process: a token for each stream, or an empty one for /dev/null."""

    terminal: bool
    stdin: bytes
    stdout: bytes
    stderr: bytes

    def check(self) -> None:
        """Raises RequestError for a token of another size, and for a terminal with a stderr of its own."""
        for name, token in (("stdin", self.stdin), ("stdout", self.stdout), ("stderr", self.stderr)):
            if len(token) not in (0, TOKEN_SIZE):
                raise RequestError(f"the token of {name} has {len(token)} bytes, not {TOKEN_SIZE}")
        if self.terminal and self.stderr:
            raise RequestError("a terminal has no standard error of its own")


class Pipes(NamedTuple):
    """The process's ends of its streams, and ours by the streams' names."""

    child: ChildStreams
    ours: dict[str, int]

    def close(self) -> None:
        """Closes both sides."""
        for descriptor in {*self.child, *self.ours.values()}:
            os.close(descriptor)


def make_pipes(names: Collection[str]) -> Pipes:
    """A pipe for each of `names`, /dev/null for the other standard streams. Raises OSError."""
    child: list[int] = []
    ours: dict[str, int] = {}
    try:
        for name in ("stdin", "stdout", "stderr"):
            if name not in names:
                child.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
                continue
            reading, writing = os.pipe2(os.O_CLOEXEC)
            ours[name], theirs = (writing, reading) if name == "stdin" else (reading, writing)
            child.append(theirs)
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
            os.set_blocking(ours[name], False)
    except BaseException:
        for descriptor in (*child, *ours.values()):
            os.close(descriptor)
        raise
    return Pipes(ChildStreams(*child), ours)


class Stdio:
    """The streams of one process. Holds descriptors from `open` to `close` or the end of `finish`."""

    def __init__(self, wish: Wish, connections: dict[str, socket.socket]) -> None:
        self.terminal = wish.terminal
        self._connections = connections
        self._descriptors: list[int] = []
        self._outputs: dict[asyncio.Task[object], Output] = {}
        self._input: asyncio.Task[object] | None = None
        self._master = -1
        self._held: HeldTerminal | None = None
        self._size: tuple[int, int] | None = None
        self._ours: dict[str, int] = {}
        self.child: ChildStreams | None = None
        """What crun gets as 0, 1 and 2; none if the process gets a terminal."""

    @classmethod
    async def open(cls, wish: Wish, dial: Dial, pipes: Pipes | None = None) -> "Stdio":
        """Connects each stream that is wished for; `pipes` for just these, if they are there already, become its own.

        Raises RequestError, or KernelError if the host does not answer; `pipes` are not its own then.
        """
        wish.check()
        tokens = {"stdin": wish.stdin, "stdout": wish.stdout, "stderr": wish.stderr}
        connections = await dial_all(dial, {name: token for name, token in tokens.items() if token})
        stdio = cls(wish, connections)
        try:
            if not wish.terminal:
                stdio._take(pipes or make_pipes(connections))
        except BaseException:
            stdio.close()
            raise
        return stdio

    def _take(self, pipes: Pipes) -> None:
        self.child = pipes.child
        self._ours = dict(pipes.ours)
        self._descriptors += [*pipes.child, *pipes.ours.values()]

    def _hold(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor

    def _give(self, descriptor: int) -> int:
        self._descriptors.remove(descriptor)
        return descriptor

    def forget_child(self) -> None:
        """Closes the process's ends, which it has by now."""
        for descriptor in set(self.child or ()):
            os.close(self._give(descriptor))
        self.child = None

    def begin(self, master: int = -1) -> None:
        """Begins to carry the streams; `master` is the terminal's master end, which is ours from here on."""
        self.forget_child()
        if self.terminal:
            self._master = self._hold(master)
            self._held = HeldTerminal(master)
            if self._size is not None:
                resize(master, *self._size)
            self._ours = {"stdout": self._hold(os.dup(master))}
            if "stdin" in self._connections:
                self._ours["stdin"] = self._hold(os.dup(master))
        for name, descriptor in self._ours.items():
            connection = self._connections.pop(name, None)
            self._give(descriptor)
            if name == "stdin":
                assert connection is not None
                carried = Input(descriptor, connection, pipe=not self.terminal, reopened=self._reopened)
                self._input = _carry(carried, name)
            else:
                output = Output(descriptor, connection, reopened=self._reopened)
                self._outputs[_carry(output, name)] = output
        self._ours = {}

    def resize(self, width: int, height: int) -> None:
        """Sets the terminal's size, now or as soon as there is one. Raises StateError if there is to be none."""
        if not self.terminal:
            raise StateError("the process has no terminal")
        self._size = (width, height)
        if self._master >= 0:
            resize(self._master, width, height)

    async def finish(self) -> None:
        """After the process's end: takes no more input, and returns when the host has all output.

        Output that the process's own children hold open is carried for deadlines.HELD_OUTPUT more; a host that takes
        nothing for deadlines.DRAIN is given up.
        """
        if self._input is not None:
            self._input.cancel()
        self._let_go()
        if self._outputs:
            await asyncio.wait(self._outputs, timeout=deadlines.HELD_OUTPUT)
            for output in self._outputs.values():
                output.stop()
        while pending := [task for task in self._outputs if not task.done()]:
            before = self._moved()
            await asyncio.wait(pending, timeout=deadlines.DRAIN)
            if self._moved() == before and any(not task.done() for task in pending):
                log.warning("nobody reads a process's output, giving it up")
                break
        tasks = self._give_up()
        await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Ends everything at once; output that was not sent is lost."""
        self._give_up()

    def _give_up(self) -> list[asyncio.Task[object]]:
        tasks = [*self._outputs, *([self._input] if self._input is not None else [])]
        for task in tasks:
            task.cancel()
        self._let_go()
        for connection in self._connections.values():
            connection.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._connections, self._descriptors, self._ours, self.child, self._master = {}, [], {}, None, -1
        return tasks

    def _reopened(self) -> bool:
        return self._held is not None and self._held.reopen()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.let_go()

    def _moved(self) -> int:
        return sum(output.moved for output in self._outputs.values())


def _carry(stream: Input | Output, name: str) -> asyncio.Task[object]:
    task: asyncio.Task[object] = asyncio.create_task(stream.run(), name=name)

    def ended(_: asyncio.Task[object]) -> None:
        # A task that was cancelled before its first step has not closed anything.
        stream.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.failure(f"{name} broke", error)

    task.add_done_callback(ended)
    return task
