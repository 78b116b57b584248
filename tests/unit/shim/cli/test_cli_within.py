"""`qemubox exec --vm` and `qemubox qmp`, through the shim's own service to a guest and a QEMU that are made up."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import pytest
import structlog

from api import admin_pb2, guest_pb2, programs_pb2
from api.admin_ttrpc import AdminBase
from api.frames import END, FrameReader, header
from shim.admin import AdminService, is_looking
from shim.errors import GuestError, MachineError
from shim.log import Logger
from shim.relay import Streams
from shim.task.container import Container
from tests.unit.shim.cli.conftest import Command
from tests.unit.shim.cli.machines import Machine
from ttrpc import Code, Context, StatusError

_ROOT = Path(__file__).parents[4]
_DEADLINE_S = 30.0
_Reply = TypeVar("_Reply")
Ends = dict[str, socket.socket]
Behaviour = Callable[[Ends], Awaitable[programs_pb2.EndedResponse]]


class _Guest:
    """vminitd's service of programs, the sandbox that leads to it, and QEMU; `behave` is what a program does."""

    def __init__(self) -> None:
        self.programs = self.guest = self.sandbox = self
        self.behave: Behaviour | None = None
        self.asked: programs_pb2.RunRequest | None = None
        self.cancelled = asyncio.Event()
        self.answer: object = {}
        self.commands: list[tuple[str, Mapping[str, object]]] = []
        self._task: asyncio.Task[programs_pb2.EndedResponse] | None = None

    async def call(self, reply: Awaitable[_Reply], *, deadline_s: float | None) -> _Reply:
        async with asyncio.timeout(deadline_s):
            try:
                return await reply
            except StatusError as error:
                raise GuestError(error.code, error.message) from error

    async def Run(self, request: programs_pb2.RunRequest) -> programs_pb2.RunResponse:
        self.asked = request
        if self.behave is None:
            raise StatusError(Code.NOT_FOUND, "bash: the guest's root has no such program")
        return programs_pb2.RunResponse(program=3, pid=44)

    async def Ended(self, request: programs_pb2.EndedRequest) -> programs_pb2.EndedResponse:
        assert request.program == 3
        assert self._task is not None
        try:
            return await asyncio.shield(self._task)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @contextlib.asynccontextmanager
    async def streams(self, streams: Streams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        for name in streams.names:
            setattr(request, name, name.encode().ljust(16))
        yield
        ends = {}
        for name in streams.names:
            ours, ends[name] = socket.socketpair()
            ours.setblocking(False)
            ends[name].setblocking(False)
            streams.connect(name, ours)
        assert self.behave is not None
        self._task = asyncio.create_task(self._behaving(self.behave, ends))

    async def _behaving(self, behave: Behaviour, ends: Ends) -> programs_pb2.EndedResponse:
        try:
            return await behave(ends)
        finally:
            for end in ends.values():
                end.close()

    async def qmp(self, command: str, arguments: Mapping[str, object]) -> object:
        self.commands.append((command, arguments))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def _say(end: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(end, header(len(data)) + data if data else END)


async def _heard(end: socket.socket) -> bytes:
    frames, heard = FrameReader(), b""
    while not frames.ended:
        data = await asyncio.get_running_loop().sock_recv(end, 1 << 16)
        assert data
        heard += b"".join(bytes(piece) for piece in frames.feed(memoryview(data)))
    return heard


class Site:
    """A shim with that guest."""

    def __init__(self, machine: Machine) -> None:
        self.guest = _Guest()
        containers = {machine.container: cast("Container", self.guest)}
        self.service = AdminService(containers, cast("Logger", structlog.get_logger()))

    async def run(self, *words: str, stdin: bytes | None = None) -> tuple[int | None, bytes, bytes]:
        """The command as a process of its own."""
        process = await self.start(*words, stdin=stdin is not None)
        async with asyncio.timeout(_DEADLINE_S):
            out, err = await process.communicate(stdin)
        return process.returncode, out, err

    async def start(self, *words: str, stdin: bool = False) -> asyncio.subprocess.Process:
        pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        command = (sys.executable, "-m", "shim.cli", *words)
        return await asyncio.create_subprocess_exec(
            *command, stdin=pipe if stdin else null, stdout=pipe, stderr=pipe, cwd=_ROOT
        )


@pytest.fixture
async def site(machine: Machine) -> AsyncIterator[Site]:
    made = Site(machine)
    async with machine.serving(made.service):
        yield made


async def test_output_of_both_kinds_and_the_status(site: Site) -> None:
    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        assert ends.keys() == {"stdout", "stderr"}
        await _say(ends["stdout"], b"out\0\xff")
        await _say(ends["stderr"], b"err")
        for name in ("stdout", "stderr"):
            await _say(ends[name], b"")
        return programs_pb2.EndedResponse(status=42)

    site.guest.behave = program
    words = ("exec", "--vm", "--timeout", "7", "name-of-box", "--", "python3.13", "-c", "x\udcff")
    assert await site.run(*words) == (42, b"out\0\xff", b"err")
    assert site.guest.asked is not None
    assert list(site.guest.asked.arguments) == [b"python3.13", b"-c", b"x\xff"]
    assert site.guest.asked.limit_ms == 7000
    assert site.guest.asked.streams.stdin == b""


async def test_input_more_than_a_pipe_holds(site: Site) -> None:
    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        heard = await _heard(ends["stdin"])
        ends["stdin"].close()
        await _say(ends["stdout"], str(len(heard)).encode())
        for name in ("stdout", "stderr"):
            await _say(ends[name], b"")
        return programs_pb2.EndedResponse()

    site.guest.behave = program
    assert await site.run("exec", "--vm", "-i", "box", "--", "x", stdin=bytes(1 << 20)) == (0, b"1048576", b"")


async def test_one_whose_time_was_up(site: Site) -> None:
    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        for name in ("stdout", "stderr"):
            await _say(ends[name], b"")
        return programs_pb2.EndedResponse(status=137, late=True)

    site.guest.behave = program
    status, _, said = await site.run("exec", "--vm", "--timeout", "3", "box", "--", "x")
    assert status == 124
    assert said == b"qemubox: the program was ended after 3 s (see --timeout)\n"


async def test_who_goes_away_is_told_to_the_guest(site: Site) -> None:
    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        await _say(ends["stdout"], b"here")
        await asyncio.Event().wait()
        raise AssertionError

    site.guest.behave = program
    process = await site.start("exec", "--vm", "box", "--", "x")
    assert process.stdout is not None
    async with asyncio.timeout(_DEADLINE_S):
        assert await process.stdout.readexactly(4) == b"here"
        process.kill()
        await process.communicate()
        await site.guest.cancelled.wait()
    task = site.guest._task
    assert task is not None
    task.cancel()
    await asyncio.wait((task,))


async def test_nobody_reads_what_it_says(site: Site) -> None:
    """As `qemubox exec ... | head -1`: it is not left running until its time is up."""

    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        with contextlib.suppress(ConnectionError):
            while True:
                await _say(ends["stdout"], b"y\n" * 4096)
        await asyncio.Event().wait()
        raise AssertionError

    site.guest.behave = program
    process = await site.start("exec", "--vm", "box", "--", "x")
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(_DEADLINE_S):
        assert await process.stdout.readline() == b"y\n"
        process.stdout._transport.close()  # type: ignore[attr-defined]  # there is no other way to hang up
        assert await process.wait() == 1
        assert await process.stderr.read() == b""
        await site.guest.cancelled.wait()
    task = site.guest._task
    assert task is not None
    task.cancel()
    await asyncio.wait((task,))


async def test_output_that_cannot_be_written_is_a_failure(site: Site) -> None:
    """As below a full disk: whatever the program's own status is, what it said is lost."""

    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        await _say(ends["stdout"], b"a result")
        for name in ("stdout", "stderr"):
            await _say(ends[name], b"")
        return programs_pb2.EndedResponse()

    site.guest.behave = program
    command = (sys.executable, "-m", "shim.cli", "exec", "--vm", "box", "--", "x")
    full = os.open("/dev/full", os.O_WRONLY)
    process = await asyncio.create_subprocess_exec(*command, stdout=full, stderr=asyncio.subprocess.PIPE, cwd=_ROOT)
    os.close(full)
    async with asyncio.timeout(_DEADLINE_S):
        _, said = await process.communicate()
    assert (process.returncode, said) == (1, b"qemubox: standard output: No space left on device\n")


async def test_input_that_cannot_be_read_is_a_failure(site: Site) -> None:
    """As below nohup(1): the program would wait for it until its time is up."""

    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        await asyncio.Event().wait()
        raise AssertionError

    site.guest.behave = program
    command = (sys.executable, "-m", "shim.cli", "exec", "--vm", "-i", "box", "--", "x")
    unreadable = os.open(os.devnull, os.O_WRONLY)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=unreadable, stdout=pipe, stderr=pipe, cwd=_ROOT)
    os.close(unreadable)
    async with asyncio.timeout(_DEADLINE_S):
        _, said = await process.communicate()
    assert (process.returncode, said) == (1, b"qemubox: standard input: Bad file descriptor\n")
    task = site.guest._task
    assert task is not None
    task.cancel()
    await asyncio.wait((task,))


async def test_a_status_that_no_process_has_is_a_failure(site: Site) -> None:
    async def program(ends: Ends) -> programs_pb2.EndedResponse:
        for name in ("stdout", "stderr"):
            await _say(ends[name], b"")
        return programs_pb2.EndedResponse(status=256)

    site.guest.behave = program
    assert (await site.run("exec", "--vm", "box", "--", "x"))[0] == 255


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--vm", "box", "--", "bash"), "bash: the guest's root has no such program"),
        (("--vm", "box"), "no program is named"),
        (("box", "--", "sh"), "exec without --vm"),
        (("--vm", "none", "--", "sh"), "container none has no machine"),
    ],
)
async def test_what_cannot_be_run(site: Site, qemubox: Command, words: tuple[str, ...], said: str) -> None:
    assert await qemubox("exec", *words) == 1
    assert said in qemubox.err


async def test_a_descriptor_that_is_no_pipe_is_refused(site: Site, machine: Machine) -> None:
    request = admin_pb2.ExecuteRequest(container_id="box", arguments=[b"x"], stdout=0, stderr=1, limit_ms=1)
    calls = site.service.Execute(request, Context())
    with pytest.raises(StatusError, match=r"is no pipe|No such file") as refused:
        await anext(calls)
    assert refused.value.code is Code.INVALID_ARGUMENT


async def test_qmp_looks_and_prints_json(site: Site, qemubox: Command) -> None:
    site.guest.answer = {"running": True, "status": "run\x1b[ning"}
    assert await qemubox("qmp", "box", "query-status") == 0
    assert qemubox.out == '{\n "running": true,\n "status": "run\\u001b[ning"\n}\n'
    assert await qemubox("qmp", "box", "qom-get", '{"path": "/", "property": "type"}') == 0
    assert site.guest.commands == [("query-status", {}), ("qom-get", {"path": "/", "property": "type"})]


async def test_qmp_what_may_change_the_machine_has_to_be_forced(site: Site, qemubox: Command) -> None:
    assert await qemubox("qmp", "box", "device_del", '{"id": "layer0"}') == 1
    assert "device_del may change the machine behind its shim's back (--force does it)" in qemubox.err
    assert site.guest.commands == []
    assert await qemubox("qmp", "--force", "box", "device_del", '{"id": "layer0"}') == 0
    assert site.guest.commands == [("device_del", {"id": "layer0"})]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query-status", "{"), "'{' is not JSON"),
        (("query-status", "[1]"), "the arguments are '[1]', and not a JSON object"),
        (("query-nothing",), "QEMU refused query-nothing: no such command"),
    ],
)
async def test_qmp_what_is_refused(site: Site, qemubox: Command, words: tuple[str, ...], said: str) -> None:
    site.guest.answer = MachineError("QEMU refused query-nothing: no such command")
    assert await qemubox("qmp", "box", *words) == 1
    assert said in qemubox.err


async def test_qmp_an_answer_that_no_message_holds(site: Site, qemubox: Command) -> None:
    site.guest.answer = "x" * (4 << 20)
    assert await qemubox("qmp", "box", "query-status") == 1
    assert "3145728 at most" in qemubox.err


async def test_a_container_without_a_task(machine: Machine, qemubox: Command) -> None:
    async with machine.serving(AdminService({}, cast("Logger", structlog.get_logger()))):
        assert await qemubox("qmp", "box", "query-status") == 1
        assert "container box has no task (start it)" in qemubox.err
        assert await qemubox("exec", "--vm", "box", "--", "x") == 1
        assert "container box has no task" in qemubox.err


async def test_a_shim_of_an_earlier_version(machine: Machine, qemubox: Command) -> None:
    """It runs on over an upgrade, and has no such service."""
    async with machine.serving():
        assert await qemubox("qmp", "box", "query-status") == 1
    assert "qemubox.shim.v1.Admin" in qemubox.err


async def test_a_shim_that_is_gone(machine: Machine, qemubox: Command) -> None:
    assert await qemubox("qmp", "box", "query-status") == 1
    assert "shim is not there any more" in qemubox.err


async def test_a_shim_that_hangs_up(machine: Machine, qemubox: Command) -> None:
    class Rude(AdminBase):
        async def Execute(
            self, request: admin_pb2.ExecuteRequest, context: Context
        ) -> AsyncIterator[admin_pb2.Execution]:
            yield admin_pb2.Execution()

    async with machine.serving(Rude()):
        assert await qemubox("exec", "--vm", "box", "--", "x") == 1
    assert "the shim has ended the call without a word" in qemubox.err


@pytest.mark.parametrize(
    ("command", "looks"),
    [
        ("query-cpus-fast", True),
        ("qom-list", True),
        ("quit", False),
        ("query", False),
        ("human-monitor-command", False),
    ],
)
def test_which_commands_only_look(command: str, looks: bool) -> None:
    assert is_looking(command) is looks


async def test_words_of_qemu_s_do_nothing_to_a_terminal(site: Site, qemubox: Command) -> None:
    site.guest.answer = MachineError("QEMU refused: \x1b[2Jgone")
    assert await qemubox("qmp", "box", "query-status") == 1
    assert "QEMU refused:  [2Jgone" in qemubox.err
