"""A container in one state, and calls to its shim: what a row of the table is tried on.

Its first process has a terminal; once it runs it has two further ones, one that runs and one that is registered only.
Every call has a deadline. What waits for an end that does not come is told as that.
"""

import asyncio
import itertools
import json
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import task_pb2
from conformance.answers import CLOSED, WAITS
from conformance.calls import ADDED_EXEC, CALLS, RUNNING_EXEC, SIGKILL, Call, Known, exec_request
from conformance.told import Told, faults
from harness.box import Box
from harness.events import Events
from harness.shim import Bundle, Connection, Record, ShimBinary
from ttrpc import Code, ConnectionClosed, StatusError

# No call that answers at all takes longer, on two busy cores and with a machine under TCG.
CALL_DEADLINE_S: Final = 30.0
# How long a Wait is given that may have to wait.
PATIENCE_S: Final = 0.3
# Longer than any container of these tests lives.
LIFE_S: Final = 600.0
SLEEP: Final = ("sleep", "1000000")
_RUN: Final = secrets.token_hex(2)
_numbers = itertools.count(1)
_Reply = TypeVar("_Reply", bound=Message)


def new_id() -> str:
    """An id that no other container has, of other test runs neither."""
    return f"t{_RUN}-{next(_numbers)}"


def process(*args: str, terminal: bool = True) -> bytes:
    """An OCI Process for exec, as JSON."""
    user = {"uid": 0, "gid": 0}
    return json.dumps({"args": args, "cwd": "/", "env": ["PATH=/bin"], "user": user, "terminal": terminal}).encode()


@dataclass(frozen=True)
class Answer:
    """What a call came to."""

    code: str
    words: str = ""


class Asking:
    """Calls to the shim of one container."""

    def __init__(self, runner: asyncio.Runner, connection: Connection, known: Known, told: Told) -> None:
        self.known = known
        # Counts the events to come; nobody listens to those of a container without containerd.
        self.told = told
        self._execs_running: set[str] = set()
        self._runner = runner
        self._connection = connection

    def ask(self, call: str | Call, exec_id: str = "", patience_s: float = PATIENCE_S) -> Answer:
        """Make a call; for another process than its own, where `exec_id` names one. A Wait has `patience_s`."""
        made = CALLS[call] if isinstance(call, str) else call
        return self._runner.run(self._ask(made, exec_id or made.exec_id, patience_s))

    def ask_at_once(self, first: tuple[Call, str, float], second: tuple[Call, str, float]) -> tuple[Answer, Answer]:
        """Make two calls, as `ask` does, neither of which waits for the other."""

        async def both() -> tuple[Answer, Answer]:
            return await asyncio.gather(self._ask(*first), self._ask(*second))

        return self._runner.run(both())

    def wait_beside(self, exec_id: str) -> "asyncio.Task[Answer]":
        """A Wait that goes on while other calls are made."""

        async def begin() -> asyncio.Task[Answer]:
            return asyncio.create_task(self._ask(CALLS["Wait"], exec_id, LIFE_S))

        return self._runner.run(begin())

    def answer_of(self, waiting: "asyncio.Task[Answer]") -> Answer:
        """What a Wait that went on was answered, within the time of one call."""

        async def answered() -> Answer:
            return await asyncio.wait_for(waiting, CALL_DEADLINE_S)

        return self._runner.run(answered())

    async def _ask(self, call: Call, exec_id: str, patience_s: float) -> Answer:
        limit_s = patience_s if call.method == "Wait" else CALL_DEADLINE_S
        request = call.request(self.known, exec_id)
        try:
            reply = await self._connection.call(call.method, request, call.reply, limit_s)
        except ConnectionClosed:
            return Answer(CLOSED)
        except StatusError as error:
            if call.method == "Wait" and error.code is Code.DEADLINE_EXCEEDED:
                return Answer(WAITS)
            return Answer(error.code.name, error.message.replace(self.known.container_id, "C"))
        return Answer("OK", call.words(self.known, reply))

    def state(self, exec_id: str = "") -> str:
        """In a word: that of the container, or of one of its other processes."""
        answer = self.ask("State(exec)", exec_id) if exec_id else self.ask("State")
        return answer.words.partition(",")[0] if answer.code == "OK" else answer.code

    def must(self, method: str, request: Message, reply: type[_Reply]) -> _Reply:
        """A call that is no row: it has to succeed."""
        return self._runner.run(self._connection.call(method, request, reply, CALL_DEADLINE_S))

    def close(self) -> None:
        """Hang up."""
        self._runner.run(self._connection.close())

    # One further process.

    def add_exec(self, exec_id: str, document: bytes = b"", *, terminal: bool = True) -> None:
        """Exec."""
        request = exec_request(self.known, exec_id, document)
        request.terminal = terminal
        if not terminal:  # runc's shim wants either all three streams or none
            request.ClearField("stdin")
            request.ClearField("stdout")
        self.must("Exec", request, Empty)
        self.told.owe(1)

    def start_exec(self, exec_id: str) -> None:
        """Start it."""
        request = task_pb2.StartRequest(id=self.known.container_id, exec_id=exec_id)
        self.known.pids[self.must("Start", request, task_pb2.StartResponse).pid] = "the exec's pid"
        self._execs_running.add(exec_id)
        self.told.owe(1)

    def end_exec(self, exec_id: str) -> None:
        """Kill it, and wait for that."""
        container = self.known.container_id
        with suppress(StatusError):  # it may have ended by itself
            self.must("Kill", task_pb2.KillRequest(id=container, exec_id=exec_id, signal=SIGKILL), Empty)
        self.must("Wait", task_pb2.WaitRequest(id=container, exec_id=exec_id), task_pb2.WaitResponse)
        self._execs_running.discard(exec_id)
        self.told.owe(1)

    def drop_exec(self, exec_id: str) -> None:
        """Whatever state it is in: it is no more."""
        if self.state(exec_id) == "running":
            self.end_exec(exec_id)
        request = task_pb2.DeleteRequest(id=self.known.container_id, exec_id=exec_id)
        with suppress(StatusError):
            self.must("Delete", request, task_pb2.DeleteResponse)

    def furnish(self) -> None:
        """Both further processes."""
        self.add_exec(ADDED_EXEC)
        self.add_exec(RUNNING_EXEC)
        self.start_exec(RUNNING_EXEC)

    def pause(self) -> None:
        """From running to paused."""
        self.must("Pause", task_pb2.PauseRequest(id=self.known.container_id), Empty)
        self.told.owe(1)

    def resume(self) -> None:
        """Back to running."""
        self.must("Resume", task_pb2.ResumeRequest(id=self.known.container_id), Empty)
        self.told.owe(1)


class Stage(Asking):
    """A container with a shim of its own, and the ways to its states."""

    def __init__(
        self,
        record: Record,
        runtime: str,
        runner: asyncio.Runner,
        events: Events,
        args: Sequence[str] = SLEEP,
    ) -> None:
        container_id = new_id()
        self.bundle = Bundle(record, container_id, [*args], terminal=True)
        self._binary = ShimBinary(record.containerd, runtime, self.bundle)
        self._box = Box(record.containerd, runtime)
        connection = runner.run(Connection.dial(record.containerd, self._binary.start()))
        create = task_pb2.CreateTaskRequest(
            id=container_id,
            bundle=str(self.bundle.path),
            rootfs=record.mounts,
            terminal=True,
            stdin=self.bundle.fifos.new("stdin"),
            stdout=self.bundle.fifos.new("stdout"),
        )
        known = Known(container_id, create, {}, process(*SLEEP))
        told = Told(events, container_id, of_runc=runtime == "runc")
        super().__init__(runner, connection, known, told)

    def create(self) -> None:
        """To the state created."""
        reply = self.must("Create", self.known.create, task_pb2.CreateTaskResponse)
        self.known.pids[reply.pid] = "the task's pid"
        self.told.owe(1)

    def start(self) -> None:
        """From created to running, with both further processes."""
        self.must("Start", task_pb2.StartRequest(id=self.known.container_id), task_pb2.StartResponse)
        self.told.owe(1)
        self.furnish()

    def stop(self) -> None:
        """To stopped."""
        with suppress(StatusError):  # it may be ending already
            self.must("Kill", task_pb2.KillRequest(id=self.known.container_id, signal=SIGKILL), Empty)
        self._wait()

    def lose_machine(self) -> None:
        """To VM dead."""
        self._box.processes("qemu-system-x86_64")[0].kill()
        self._wait()

    def delete(self) -> None:
        """From stopped to deleted."""
        self.must("Delete", task_pb2.DeleteRequest(id=self.known.container_id), task_pb2.DeleteResponse)
        self.told.owe(1)

    def _wait(self) -> None:
        self.must("Wait", task_pb2.WaitRequest(id=self.known.container_id), task_pb2.WaitResponse)
        self.told.owe(1 + len(self._execs_running))

    def finish(self) -> None:
        """From whatever state to deleted."""
        for step in (self.resume, self.stop, self.delete):
            with suppress(StatusError):
                step()

    def remove(self) -> None:
        """From whatever state to nothing at all."""
        self.finish()
        with suppress(StatusError):
            self.must("Shutdown", task_pb2.ShutdownRequest(id=self.known.container_id), Empty)
        self.close()
        self._binary.delete()
        self.bundle.remove()

    def faults(self) -> list[str]:
        """What is wrong with all that was told of it; for the time when it is removed."""
        return faults(self.told.all)
