"""What `qemubox qmp` and `qemubox exec --vm` ask of a shim, at the socket where containerd calls the task service.

Nobody but root can connect there, and root of the host owns the machine anyway: it can read its memory and its disks,
and stop it. So neither is an option of the configuration. For the shim they are a risk of another kind, since a command
of QEMU's may change the machine behind its back: only those that look are carried out without a word more.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from api import admin_pb2, programs_pb2
from api.admin_ttrpc import AdminBase
from shim import deadlines, untrusted
from shim.copy.carry import Pipe
from shim.copy.service import pipe_of
from shim.errors import GuestError, NotFoundError, QemuboxError, ResourceError, SpecError, StateError
from shim.log import Logger
from shim.relay import relay_input, relay_output
from shim.task.container import Container
from ttrpc import Context, StatusError

# Those of QEMU's commands that change nothing, beside all that begin with "query-" (QEMU QMP Reference Manual).
_LOOKING: Final = frozenset(
    {
        *("qom-get", "qom-list", "qom-list-get", "qom-list-types", "qom-list-properties"),
        *("device-list-properties", "trace-event-get-state"),
    }
)
# ttrpc takes 4 MiB, and QEMU's longest answer, query-qmp-schema, has a tenth of that.
_RESULT_LIMIT: Final = 3 << 20
# From the end of a program's time to the guest's word on it: its output has 30 s to be taken.
_LAST_WORDS_S: Final = deadlines.DRAIN_S + deadlines.GUEST_CALL_S


def is_looking(command: str) -> bool:
    """Whether a command of QEMU's changes nothing of the machine."""
    return command.startswith("query-") or command in _LOOKING


class AdminService(AdminBase):
    """See api/admin.proto. `containers` are those of the task service, by id."""

    def __init__(self, containers: Mapping[str, Container], log: Logger) -> None:
        self._containers = containers
        self._log = log

    async def Qmp(self, request: admin_pb2.QmpRequest, context: Context) -> admin_pb2.QmpResponse:
        with self._statuses():
            container = self._container(request.container_id)
            arguments = json_object(request.arguments)
            if not is_looking(request.command):
                if not request.force:
                    raise StateError(
                        f"{request.command} may change the machine behind its shim's back", hint="--force does it"
                    )
                self._log.warning("an administrator's QMP command", command=request.command)
            result = json.dumps(await container.sandbox.qmp(request.command, arguments))
            if len(result) > _RESULT_LIMIT:
                raise ResourceError(f"{request.command}: the answer has {len(result)} bytes, {_RESULT_LIMIT} at most")
            return admin_pb2.QmpResponse(result=result)

    async def Execute(self, request: admin_pb2.ExecuteRequest, context: Context) -> AsyncIterator[admin_pb2.Execution]:
        with self._statuses():
            sandbox = self._container(request.container_id).sandbox
            guest = sandbox.guest
            async with _Streams(request, context) as streams:
                asked = programs_pb2.RunRequest(arguments=request.arguments, limit_ms=request.limit_ms)
                async with sandbox.streams(streams, asked.streams):
                    begun = await guest.call(guest.programs.Run(asked), deadline_s=deadlines.GUEST_CALL_S)
                self._log.warning("an administrator's program runs in the guest", pid=begun.pid)
                yield admin_pb2.Execution()
                # Given up, it ends the program: the guest hears of that.
                last = guest.programs.Ended(programs_pb2.EndedRequest(program=begun.program))
                end = await guest.call(last, deadline_s=request.limit_ms / 1000 + _LAST_WORDS_S)
                await streams.carried()
            yield admin_pb2.Execution(ended=True, status=untrusted.status(end.status), late=end.late)

    def _container(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise NotFoundError(f"container {container_id} has no task", hint="start it")
        return container

    @contextlib.contextmanager
    def _statuses(self) -> Iterator[None]:
        """Turn an error of the tree in shim/errors.py, or of a pipe, into a status."""
        try:
            yield
        except QemuboxError as error:
            code = error.status if isinstance(error, GuestError) else error.code
            self._log.info("an administrator's call failed", code=code.name, error=str(error))
            raise StatusError(code, str(error)) from error


class _Streams:
    """The host's ends of a program's streams, pipes of the caller's: shim/relay.py, Streams."""

    def __init__(self, request: admin_pb2.ExecuteRequest, context: Context) -> None:
        self._pipes: dict[str, Pipe] = {}
        self._relays: dict[str, asyncio.Task[bool]] = {}
        try:
            if request.has_stdin:
                self._pipes["stdin"] = pipe_of(context, request.stdin, reading=True)
            for name, number in (("stdout", request.stdout), ("stderr", request.stderr)):
                self._pipes[name] = pipe_of(context, number, reading=False)
        except BaseException:
            self._close()
            raise
        self.names = tuple(self._pipes)

    async def __aenter__(self) -> "_Streams":
        return self

    async def __aexit__(self, *_: object) -> None:
        for relay in self._relays.values():
            relay.cancel()
        await asyncio.gather(*self._relays.values(), return_exceptions=True)
        self._close()

    def connect(self, name: str, connection: socket.socket) -> None:
        """See shim/relay.py, Streams."""
        relay = relay_input if name == "stdin" else relay_output
        task = asyncio.create_task(relay(connection, self._pipes[name]), name=f"a program's {name}")
        task.add_done_callback(lambda _: connection.close())
        self._relays[name] = task

    async def carried(self) -> None:
        """Return when all output is with the caller, which has as long for that as any reader."""
        outputs = [task for name, task in self._relays.items() if name != "stdin"]
        await asyncio.wait(outputs, timeout=deadlines.DRAIN_S)

    def _close(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()


def json_object(text: str) -> dict[str, object]:
    """The arguments of a command. Raises SpecError for what is no JSON object."""
    if not text:
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SpecError(f"the arguments are not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SpecError(f"the arguments are {text[:60]!r}, and not a JSON object")
    return document
