"""A program run as the unprivileged user, that dies with us and whose last words are kept.

QEMU and its helpers are started through setpriv(1) of util-linux, which every Debian
has: it drops user, groups and every capability, forbids new privileges, and asks for
SIGKILL when the thread that started it dies. It has to be in this order: the kernel
forgets the death signal when the user changes (prctl(2), PR_SET_PDEATHSIG). setpriv
costs 1.8 ms (Debian 12, 2026-11); a Python launcher costs 15, and a preexec_fn would
run Python between fork and exec and cost the fork of the whole shim instead of a vfork.

What must hold: `spawn` runs in the main thread, which lives as long as the process.
The end is learnt from a pidfd on the loop, not from SIGCHLD, so nobody else's children
are touched. Should we be killed before setpriv has asked for the death signal, the
journal's marker finds the process. One that is ending shows no command line any more, and
still holds all that it has open: by its pid, which the journal has as well, its end is waited for.
"""

import asyncio
import contextlib
import os
import resource
import select
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from shim.errors import HostError, MissingPartError
from shim.journal import Journal
from shim.reclaim import record_child
from shim.vm.states import describe_status

SETPRIV: Final = "/usr/bin/setpriv"
# How much of standard error is kept: its end.
STDERR_LIMIT: Final = 16384
_PROC: Final = Path("/proc")
# What QEMU says, again and again, of free pages in memory that is a sealed template's: it cannot give them back.
_IDLE_WORDS: Final = "ram_block_discard_range: Failed to fallocate base:"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whom a program runs as: numeric user, group and further groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def setpriv_args(self) -> list[str]:
        """The options of setpriv(1) that bring a root process down to these credentials."""
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        return [
            *("--reuid", str(self.uid), "--regid", str(self.gid), *groups),
            *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--pdeathsig", "KILL"),
        ]


class Child(Protocol):
    """A process that has been started, as subprocess.Popen is one."""

    pid: int

    def wait(self) -> int:
        """After its end: its exit status."""


class Process:
    """A running program. Made by `spawn`; the one who makes it must `kill` it."""

    def __init__(self, name: str, child: Child, stderr: int) -> None:
        self.name = name
        self.pid = child.pid
        # The exit status: a code, or minus a signal's number. Done after all of standard error was read.
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._stderr = stderr
        self._stderr_text = bytearray()
        self._pidfd = os.pidfd_open(child.pid)
        self._loop.add_reader(stderr, self._read_stderr)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def ended(self) -> bool:
        """Whether it has ended, noticed by the loop or not yet (pidfd_open(2): readable at the end)."""
        if self.exited.done():
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    @property
    def stderr(self) -> str:
        """The end of what the program wrote to standard output and error, without blanks around it, or idle words.

        In printable characters: it goes into logs and onto terminals, and a guest may have had a part in it (names of
        files that virtiofsd tells of, or all of it where QEMU was taken over).
        """
        text = self._stderr_text.decode(errors="replace")
        plain = "".join(one if one.isprintable() or one in "\n\t" else "?" for one in text)
        return "\n".join(line for line in plain.split("\n") if _IDLE_WORDS not in line).strip()

    def kill(self) -> None:
        """Send SIGKILL, if it still runs; `exited` tells when it is gone."""
        if not self.exited.done():
            # By pidfd: the process may have ended but not been reaped, and its pid is still ours then, too.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def failure(self) -> str:
        """One line on how it ended, with the end of its standard error."""
        status = describe_status(self.exited.result()) if self.exited.done() else "is still running"
        words = " | ".join(line for line in self.stderr.splitlines()[-4:] if line)
        return f"{self.name} {status}" + (f": {words}" if words else "")

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._stderr)
            return
        self._stderr_text += data
        del self._stderr_text[:-STDERR_LIMIT]

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._child.wait()
        self._drain_stderr()
        self.exited.set_result(status)

    def _drain_stderr(self) -> None:
        """Take what is in the pipe; a grandchild that holds it open is not waited for."""
        self._loop.remove_reader(self._stderr)
        while True:
            try:
                data = os.read(self._stderr, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self._stderr_text += data
        del self._stderr_text[:-STDERR_LIMIT]
        os.close(self._stderr)


def spawn(
    argv: Sequence[str], *, name: str, marker: str, credentials: Credentials, journal: Journal, pass_fds: Sequence[int]
) -> Process:
    """Start a program as `credentials`, in a session of its own, and answer it.

    `marker` is a text that stands in its command line and in no other program's; it is
    journaled before. `pass_fds` keep their numbers in the child. The program gets
    nothing of our environment but PATH. Raises MissingPartError without setpriv,
    HostError for what the kernel refuses. Must be called from the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise HostError(f"{name} may only be started from the main thread: it dies with the thread that starts it")
    if not any(marker in word for word in argv):
        raise HostError(f"{name}: {marker} is not in its command line: {shlex.join(argv)}")
    journal.record("process", marker=marker)
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    try:
        with _limits_for_child():
            child = subprocess.Popen(
                [SETPRIV, *credentials.setpriv_args(), "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                pass_fds=pass_fds,
                start_new_session=True,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
            )
    except FileNotFoundError:
        os.close(ours)
        raise MissingPartError(f"{SETPRIV}: no such file", hint="install util-linux") from None
    except OSError as error:
        os.close(ours)
        raise HostError(f"{name} cannot be started: {error.strerror}") from error
    finally:
        os.close(theirs)
    try:
        record_child(journal, child.pid)
        _unshield(child.pid)
    except BaseException:
        child.kill()
        child.wait()
        os.close(ours)
        raise
    return Process(name, child, ours)


def _unshield(pid: int) -> None:
    """Have the kernel end it like any other program when the host's memory is used up: a guest's memory is in it.

    containerd is spared (systemd's OOMScoreAdjust=-999), and all that it starts inherits that: the host would lose
    everything else first. A program that has ended by now has nothing to be changed.
    """
    score = _PROC / str(pid) / "oom_score_adj"
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if int(score.read_text()) < 0:
            score.write_text("0")


@contextlib.contextmanager
def _limits_for_child() -> Iterator[None]:
    """What a child inherits while this is held: all descriptors that may be had, and no core dump.

    A joined disk of 128 files takes 300 descriptors; a core dump would hold a guest's
    memory. Set on ourselves and taken back, because prlimit(2) on a child that has
    another user already needs CAP_SYS_RESOURCE.
    """
    files, core = resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, core[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
        resource.setrlimit(resource.RLIMIT_CORE, core)
