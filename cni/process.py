"""One program, run to its end on the event loop: what it is told, what it says, and its deadline.

It is waited for by its pidfd: the child watcher of Python 3.11's asyncio takes a thread for each child.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# From SIGTERM to SIGKILL, and from that to its end.
_GRACE_S = 2.0
_KILL_S = 5.0
# A program that is being written by an installer cannot be executed; so many tries, so far apart (libcni has 5 × 1 s).
_BUSY_TRIES = 5
_BUSY_S = 0.5
_PIECE = 65536
# What a pipe may still have when its writer is gone, 1 MiB at most; a child of the writer may write on for ever.
_LAST_PIECES = 16


class CannotExecute(Exception):
    """It could not be started; the text says why."""


@dataclass(frozen=True)
class Ended:
    """How it ended: exit status, or the signal's number as a negative one, and what it wrote.

    `overdue` if its deadline had to end it, `excessive` if that was done for all that it wrote.
    """

    status: int
    stdout: bytes
    stderr: bytes
    overdue: bool = False
    excessive: bool = False


async def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    stdin: bytes,
    timeout_s: float,
    stdout_max: int,
    stderr_max: int,
    inherited: Sequence[int] = (),
    on_spawn: Callable[[int], None] = lambda _: None,
) -> Ended:
    """Run it as the leader of a session and process group of its own, in the root directory.

    `on_spawn` gets its pid, and so its group's, before it gets a byte of `stdin`, or the end of that.
    `inherited` are descriptors that it has too. It is ended with its group, by SIGTERM and 2 s later SIGKILL, after
    `timeout_s` and once it has written more than `stdout_max` bytes; of its standard error the last `stderr_max` are
    kept. Whoever of its children goes on after it and has its streams is not waited for. When the caller is
    cancelled it is killed. Raises CannotExecute.
    """
    with _Running(await _started(command, environ, inherited), stdout_max, stderr_max) as running:
        on_spawn(running.child.pid)
        running.listen(stdin)
        overdue = not await running.ended(timeout_s)
        if overdue or running.excessive:
            await running.stop()
        status = running.reap()
        return Ended(status, bytes(running.stdout), bytes(running.stderr), overdue, running.excessive)


async def _started(
    command: Sequence[str], environ: Mapping[str, str], inherited: Sequence[int]
) -> subprocess.Popen[bytes]:
    tries = _BUSY_TRIES
    while True:
        tries -= 1
        try:
            return _popen(command, environ, inherited)
        except OSError as error:
            if error.errno != errno.ETXTBSY or not tries:
                raise CannotExecute(error.strerror) from error
        await asyncio.sleep(_BUSY_S)


def _popen(command: Sequence[str], environ: Mapping[str, str], inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environ,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=inherited,
        start_new_session=True,
    )


class _Running:
    """Its process, its end, and our ends of its streams."""

    def __init__(self, child: subprocess.Popen[bytes], stdout_max: int, stderr_max: int) -> None:
        self.child = child
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.excessive = False
        self._stdout_max = stdout_max
        self._stderr_max = stderr_max
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._gone = asyncio.Event()
        self._told = memoryview(b"")
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._in, self._out, self._err = child.stdin.fileno(), child.stdout.fileno(), child.stderr.fileno()
        for fd in (self._in, self._out, self._err):
            os.set_blocking(fd, False)
        try:
            self._pidfd = os.pidfd_open(child.pid)
        except OSError:  # no descriptor is left; it has been told nothing yet
            with child:
                child.kill()
            raise

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_: object) -> None:
        """However this ends: nobody of its group lives on if it did not end by itself, and nothing of ours is open."""
        if self.child.returncode is None:
            self._signal(signal.SIGKILL)
        for fd in (self._out, self._err, self._pidfd):
            self._loop.remove_reader(fd)
        self._close_stdin()
        os.close(self._pidfd)
        for stream in (self.child.stdout, self.child.stderr):
            assert stream is not None
            stream.close()
        if self.child.returncode is None:
            # Killed a moment ago; only one in uninterruptible sleep takes longer, and subprocess reaps that later.
            _wait_shortly(self.child)

    def listen(self, stdin: bytes) -> None:
        """Write and read from now on, and wait for its end."""
        self._told = memoryview(stdin)
        self._loop.add_writer(self._in, self._tell)
        self._loop.add_reader(self._out, self._hear_stdout)
        self._loop.add_reader(self._err, self._hear_stderr)
        self._loop.add_reader(self._pidfd, self._end)

    async def ended(self, timeout_s: float) -> bool:
        """Whether it came to its end, or is to, within the time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._done.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to whoever of its group is left when it is gone or the grace is over."""
        self._signal(signal.SIGTERM)
        await self._until_gone(_GRACE_S)
        self._signal(signal.SIGKILL)
        await self._until_gone(_KILL_S)

    def reap(self) -> int:
        """Its status, with what it has written and nobody has read yet."""
        if self._gone.is_set():
            self.child.wait()
            for hear in (self._hear_stdout, self._hear_stderr):
                for _ in range(_LAST_PIECES):
                    if self.excessive or not hear():
                        break
        return self.child.returncode if self.child.returncode is not None else -signal.SIGKILL

    async def _until_gone(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            return

    def _signal(self, number: signal.Signals) -> None:
        """To its group, whose number is nobody else's until it is reaped."""
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            return

    def _end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._gone.set()
        self._done.set()

    def _tell(self) -> None:
        try:
            self._told = self._told[os.write(self._in, self._told[:_PIECE]) :] if self._told else self._told
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._told = self._told[:0]
        if not self._told:
            self._close_stdin()

    def _close_stdin(self) -> None:
        stream = self.child.stdin
        if stream is not None and not stream.closed:
            self._loop.remove_writer(self._in)
            stream.close()

    def _hear_stdout(self) -> bool:
        data = self._read(self._out)
        self.stdout += data
        if len(self.stdout) > self._stdout_max:
            del self.stdout[self._stdout_max :]
            self.excessive = True
            self._loop.remove_reader(self._out)
            self._done.set()
        return bool(data)

    def _hear_stderr(self) -> bool:
        data = self._read(self._err)
        self.stderr += data
        del self.stderr[: -self._stderr_max]
        return bool(data)

    def _read(self, fd: int) -> bytes:
        try:
            data = os.read(fd, _PIECE)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.remove_reader(fd)
        return data


def _wait_shortly(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        return
