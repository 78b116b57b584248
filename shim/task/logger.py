"""`binary://` loggers: a program of the host that takes a process's output, one for both streams.

As containerd's own shim starts them (cmd/containerd-shim-runc-v2/process/io.go): the program
gets the URI's path, its query as arguments, nothing in its environment but CONTAINER_ID and
CONTAINER_NAMESPACE, and three descriptors: 3 and 4 to read standard output and error from, 5 to
say that it is ready. With `binary://` closing 5 says that, with `binary-v2://` (containerd 2.3)
one byte does. `nerdctl run -d` logs by this.

A logger lives on until it has written what it read, so it is not made to die with the shim: at
the shim's end, whatever that was, it reads the end of both streams. One that does not end then is
ended by the journal. Its own standard output and error are a pipe that it holds both ends of, so
that it can never die of writing to them.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from typing import Final

from shim import deadlines
from shim.descriptors import readable
from shim.errors import HostError, MissingPartError
from shim.journal import Journal
from shim.log import Logger
from shim.reclaim import record_child
from shim.task.logger_address import LoggerAddress

# How much of what it says itself is kept: its end.
_WORDS_LIMIT: Final = 4096
# Descriptors that will be 3, 4 and 5 in the child lie above these, or one would be put over another.
_ABOVE_CHILDS: Final = 10
# /proc/PID/stat, field 9: the kernel has begun to end the process (linux/sched.h).
_PF_EXITING: Final = 0x4


class LoggerProcess:
    """A running logger. `stdout` and `stderr` are what it reads the other ends of; who takes them closes them."""

    def __init__(self, program: str, pid: int, stdout: int, stderr: int, words: int, log: Logger) -> None:
        self.stdout, self.stderr = stdout, stderr
        self._program = program
        self._pid = pid
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(pid)
        # The exit status: a code, or minus a signal's number.
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._said = bytearray()
        self._words = words
        # Whether its end is nobody's wish and nobody's error yet: then it goes into the log.
        self._expected = True
        self._loop.add_reader(words, self._hear)
        self._loop.add_reader(self._pidfd, self._reap)

    async def ready(self, told: int, *, speaks: bool) -> None:
        """Return once it has said so on `told`. Raises HostError where it never does, or ends instead."""
        try:
            async with asyncio.timeout(deadlines.LOGGER_READY_S):
                await readable(told)
                word = os.read(told, 1)
                if word or (not speaks and not self._is_ending()):
                    self._expected = False
                    return
                await asyncio.wait([self._exited], timeout=deadlines.LOGGER_EOF_S)
        except TimeoutError:
            raise HostError(
                f"the logger {self._program} was not ready after {deadlines.LOGGER_READY_S:g} s{self._words_said()}"
            ) from None
        # Its process may have left the work to a child, and then there still is a reader.
        if speaks or not _is_read(self.stdout):
            raise HostError(f"the logger {self._program} {self._how()} before it was ready{self._words_said()}")

    async def end(self) -> None:
        """Return when it is gone: by itself, since it has read the end of its streams, or told to go."""
        self._expected = True
        for limit_s, number in (
            (deadlines.LOGGER_EOF_S, signal.SIGTERM),
            (deadlines.LOGGER_TERM_S, signal.SIGKILL),
            (deadlines.LOGGER_KILL_S, None),
        ):
            await asyncio.wait([self._exited], timeout=limit_s)
            if self._exited.done():
                return
            self._log.warning("the logger does not end", program=self._program, waited_s=limit_s)
            if number is not None:
                self._signal(number)

    def kill(self) -> None:
        """Kill it, whatever it has still to write."""
        self._expected = True
        if not self._exited.done():
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _is_ending(self) -> bool:
        if self._exited.done():
            return True
        try:
            with open(f"/proc/{self._pid}/stat", "rb") as file:
                return bool(int(file.read().rpartition(b") ")[2].split()[6]) & _PF_EXITING)
        except OSError:
            return True

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self._hear()
        self._loop.remove_reader(self._words)
        os.close(self._words)
        self._exited.set_result(os.waitstatus_to_exitcode(status))
        if not self._expected and self._exited.result() != 0:
            self._log.warning("the logger failed", program=self._program, how=self._how(), said=self._words_said())

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._said += os.read(self._words, 65536)
            del self._said[:-_WORDS_LIMIT]

    def _how(self) -> str:
        if not self._exited.done():
            return "closed its streams"
        status = self._exited.result()
        return f"ended with exit status {status}" if status >= 0 else f"was killed by signal {-status}"

    def _words_said(self) -> str:
        words = " | ".join(line for line in self._said.decode(errors="replace").splitlines() if line.strip())
        return f": {words}" if words else ""


class Loggers:
    """Starts loggers for the processes of one container's namespace, each in the journal."""

    def __init__(self, namespace: str, journal: Journal, log: Logger) -> None:
        self._namespace = namespace
        self._journal = journal
        self._log = log

    async def start(self, address: LoggerAddress, name: str) -> LoggerProcess:
        """A logger that has said that it is ready, for the process `name`: a container's id, or an exec's.

        Raises MissingPartError where there is no such program, HostError for what goes wrong.
        """
        with _Pipes() as pipes:
            pid = _spawn(address, {"CONTAINER_ID": name, "CONTAINER_NAMESPACE": self._namespace}, pipes)
            stdout, stderr, words = pipes.give("write stdout", "write stderr", "read words")
            logger = LoggerProcess(address.program, pid, stdout, stderr, words, self._log)
            try:
                record_child(self._journal, pid)
                pipes.close("read stdout", "read stderr", "write ready", "write words")
                await logger.ready(pipes["read ready"], speaks=address.speaks)
            except BaseException:
                os.close(stdout)
                os.close(stderr)
                logger.kill()
                await logger.end()
                raise
        return logger


class _Pipes:
    """The descriptors of a start, by name; at the end of the block those that were not given away are closed."""

    def __init__(self) -> None:
        self._open: dict[str, int] = {}

    def __enter__(self) -> "_Pipes":
        try:
            for name in ("stdout", "stderr", "ready", "words"):
                ends = os.pipe2(os.O_CLOEXEC)
                try:
                    for end, fd in zip(("read", "write"), ends, strict=True):
                        self._open[f"{end} {name}"] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE_CHILDS)
                finally:
                    for fd in ends:
                        os.close(fd)
            # A pipe with its reader and its writer in one descriptor: whoever has it can always write (fifo(7)).
            both = os.open(f"/proc/self/fd/{self._open['write words']}", os.O_RDWR | os.O_CLOEXEC)
            self.close("write words")
            self._open["write words"] = both
        except BaseException:
            self.close(*self._open)
            raise
        for name in ("write stdout", "write stderr", "read ready", "read words"):
            os.set_blocking(self._open[name], False)
        return self

    def __exit__(self, *_: object) -> None:
        self.close(*self._open)

    def __getitem__(self, name: str) -> int:
        return self._open[name]

    def give(self, *names: str) -> list[int]:
        """Let the caller have them."""
        return [self._open.pop(name) for name in names]

    def close(self, *names: str) -> None:
        """Close them."""
        for name in tuple(names):
            os.close(self._open.pop(name))


def _spawn(address: LoggerAddress, environment: dict[str, str], pipes: _Pipes) -> int:
    """Start the program; posix_spawn(3), for the sake of the descriptors' numbers. Raises as Loggers.start."""
    actions: list[tuple[int, int] | tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    # What Python makes closes at exec(2); what came through a socket may not.
    actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _inheritable()]
    actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
    for name, number in (("write words", 1), ("write words", 2), ("read stdout", 3), ("read stderr", 4)):
        actions.append((os.POSIX_SPAWN_DUP2, pipes[name], number))
    actions.append((os.POSIX_SPAWN_DUP2, pipes["write ready"], 5))
    try:
        return os.posix_spawn(
            address.program,
            [address.program, *address.arguments],
            environment,
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )
    except FileNotFoundError:
        raise MissingPartError(f"the logger {address.program} cannot be started: no such file") from None
    except OSError as error:
        raise HostError(f"the logger {address.program} cannot be started: {error.strerror}") from error


def _inheritable() -> list[int]:
    found = []
    for number in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the one of the listing itself
            if number > 2 and os.get_inheritable(number):
                found.append(number)
    return found


def _is_read(fd: int) -> bool:
    """Whether anybody has the reading end of the pipe that `fd` writes to (poll(2), POLLERR)."""
    poll = select.poll()
    poll.register(fd, 0)
    return not poll.poll(0)
