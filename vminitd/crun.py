"""crun, the OCI runtime that makes the containers: one call of the program for each step (crun(1)).

crun writes its errors to the log that it is given, and to its standard error too, which for `create` and `exec` is
the container's. So nothing is relayed from the container's streams until crun has succeeded; after a failure they
are thrown away and the error is taken from the log.

crun exits when the container's process exists; that process is then left to PID 1 (`reaper`).

Between create and start that process waits for one byte in a FIFO, `exec.fifo` in crun's directory of the container
(crun 1.21: status.c, libcrun_status_write_exec_fifo; container.c, container_init). All that `crun start` does is to
remove the FIFO and write that byte (poststart hooks, which it would run as well, never come here: the shim runs them on
the host; startContainer hooks the process runs itself, once it has that byte). So
vminitd does it itself, which saves running a program: docs/decisions/0013.
"""

import asyncio
import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from vminitd import deadlines, log
from vminitd.crun_log import error_text
from vminitd.errors import CrunError
from vminitd.reaper import Reaper
from vminitd.spawn import spawn

PROGRAM = "/usr/bin/crun"


class ChildStreams(NamedTuple):
    """The descriptors that become 0, 1 and 2 of crun and of the process that it starts."""

    stdin: int
    stdout: int
    stderr: int


class Call(NamedTuple):
    """A crun that runs. `verb` is what it was told to do; its exit status comes by `ended`."""

    verb: str
    pid: int
    ended: asyncio.Future[int]
    log: str


class Creation(NamedTuple):
    """A `crun create` that runs. `pid` is the reading end of the FIFO into which it writes the process's pid."""

    call: Call
    pid: int


class Crun:
    """Calls of crun for the containers whose state is below `directory`."""

    def __init__(self, reaper: Reaper, directory: str, program: str = PROGRAM) -> None:
        self._reaper = reaper
        self._directory = directory
        self._state = f"{directory}/state"
        self._program = program
        self._calls = 0
        self._ending: set[asyncio.Task[None]] = set()
        self._null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.makedirs(directory, mode=0o700, exist_ok=True)

    async def create(self, name: str, bundle: str, streams: ChildStreams | None, console: str) -> int:
        """Makes the container of `bundle`/config.json, all but running it. Gives its pid.

        With `console`, the path of a listening socket, the process gets a terminal, whose other end goes there.
        Call it inside `Reaper.adopting`, and `expect` the pid there. Raises CrunError.
        """
        return await self.created(self.begin_create(name, bundle, streams, console))

    def begin_create(self, name: str, bundle: str, streams: ChildStreams | None, console: str) -> Creation:
        """The first half of `create`; the other is `created`. Raises CrunError or OSError."""
        path = f"{bundle}/pid"
        os.mkfifo(path, 0o600)
        pid = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        arguments = ["create", "--bundle", bundle, "--pid-file", path, *_console(console), name]
        try:
            return Creation(self.begin(arguments, streams), pid)
        except BaseException:
            os.close(pid)
            raise

    async def created(self, creation: Creation, deadline_s: float | None = None) -> int:
        """Waits until the process exists, and gives its pid.

        That is the last thing that crun does. Its own end is not waited for; the host needs a while for its next call.
        """
        call, fifo = creation
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()
        loop.add_reader(fifo, _set, told)
        try:
            wait_s = deadlines.CRUN if deadline_s is None else deadline_s
            await asyncio.wait((told, call.ended), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            text = os.read(fifo, 32) if told.done() or call.ended.done() else b""
        except BaseException:
            if not call.ended.done():
                os.kill(call.pid, signal.SIGKILL)
            raise
        finally:
            loop.remove_reader(fifo)
            os.close(fifo)
        if not text:
            await self.finish(call, 0)
            raise CrunError("crun did not write the process's pid")
        ending = asyncio.create_task(self._see_off(call), name="crun's end")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        return int(text)

    async def _see_off(self, call: Call) -> None:
        try:
            await self.finish(call)
        except CrunError as error:
            log.error("crun has made the process, and then failed", error=error.message)

    async def exec(self, name: str, process_file: str, streams: ChildStreams | None, console: str) -> int:
        """Runs a further process in the container. Gives its pid; see `create`."""
        pid_file = f"{process_file}.pid"
        arguments = ["exec", "--detach", "--process", process_file, "--pid-file", pid_file]
        try:
            await self.call([*arguments, *_console(console), name], streams)
            return _read_pid(pid_file)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(pid_file)

    async def start(self, name: str) -> None:
        """Lets the created container run. Raises CrunError."""
        if not _let_go(f"{self._state}/{name}/exec.fifo"):
            # Whatever is not as it should be, crun says it best.
            await self.call(["start", name])

    async def update(self, name: str, resources_file: str) -> None:
        """Changes the limits to the OCI LinuxResources in the file. Raises CrunError."""
        await self.call(["update", "--resources", resources_file, name])

    async def delete(self, name: str) -> None:
        """Removes what crun keeps of the container, and its cgroup; kills what is left. Raises CrunError."""
        await self.call(["delete", "--force", name])

    def forget(self, name: str) -> None:
        """Removes what crun keeps of a container that has ended, but not its cgroup. Raises OSError."""
        directory = f"{self._state}/{name}"
        for file in os.listdir(directory):
            os.unlink(f"{directory}/{file}")
        os.rmdir(directory)

    async def call(self, arguments: Sequence[str], streams: ChildStreams | None = None) -> None:
        """Runs crun to its end; without `streams` on /dev/null. Raises CrunError with crun's own words."""
        await self.finish(self.begin(arguments, streams))

    def begin(self, arguments: Sequence[str], streams: ChildStreams | None = None) -> Call:
        """Starts crun; without `streams` on /dev/null. Raises CrunError if it cannot be started."""
        self._calls += 1
        log_file = f"{self._directory}/log.{self._calls}"
        fixed = [self._program, "--root", self._state, "--cgroup-manager=cgroupfs"]
        command = [*fixed, f"--log=file:{log_file}", *arguments]
        stdin, stdout, stderr = streams or (self._null, self._null, self._null)
        try:
            pid = spawn(command, stdin=stdin, stdout=stdout, stderr=stderr)
        except OSError as error:
            raise CrunError(f"cannot run {self._program}: {error.strerror}") from error
        return Call(arguments[0], pid, self._reaper.expect(pid), log_file)

    async def finish(self, call: Call, deadline_s: float | None = None) -> None:
        """Waits for its end. Raises CrunError with crun's own words; a crun that takes too long is killed."""
        try:
            async with asyncio.timeout(deadlines.CRUN if deadline_s is None else deadline_s):
                status = await asyncio.shield(call.ended)
            if status:
                text = error_text(_read_if_there(call.log))
                raise CrunError(text or f"crun {call.verb} failed with status {status} and without a message")
        except TimeoutError:
            raise CrunError(f"crun {call.verb} did not end within {deadlines.CRUN:g} s") from None
        finally:
            if not call.ended.done():
                os.kill(call.pid, signal.SIGKILL)
            with suppress(FileNotFoundError):
                os.unlink(call.log)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _let_go(path: str) -> bool:
    """Removes the FIFO `path` and writes to whoever waits at it. False if that is not what is there."""
    try:
        fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ENXIO: it is there, but nobody reads
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
            return False
        os.unlink(path)
        os.write(fifo, b"\0")
    except BrokenPipeError:  # killed this very moment
        return False
    finally:
        os.close(fifo)
    return True


def _console(path: str) -> list[str]:
    return ["--console-socket", path] if path else []


def _read_pid(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise CrunError(f"crun did not write the process's pid: {error}") from error


def _read_if_there(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
