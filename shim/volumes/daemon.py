"""virtiofsd for one machine, from its start to its end.

It is forked by the anchors' source (launcher.py), which dies with the shim, and it with that. It serves one connection,
which is made before it runs: the socket has a name, in a directory of root's, only between the two, so nobody else can
be the one. When that connection ends, it ends. It runs as root, since the owners of files must be those that the
container names, with the capabilities of a file server and nothing to see but the share.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shim import deadlines
from shim.anchor_process import VOLUMES, Source
from shim.descriptors import readable
from shim.errors import HostError
from shim.journal import Journal
from shim.mounts import Volume
from shim.reclaim import open_marked, record_child
from shim.vm.process import Process
from shim.volumes import launcher

_GONE: Final = "what was to become it has ended"


class _Forked:
    """What Process takes: somebody else's child, who has told us its pid, and will reap it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self) -> int:
        """How it ended is not known to us."""
        return 0


class Daemon(Process):
    """A running virtiofsd; `connection` is QEMU's end of its socket. Made by `start`; to be ended by `stop`."""

    def __init__(self, pid: int, stderr: int, connection: socket.socket) -> None:
        super().__init__("virtiofsd", _Forked(pid), stderr)
        self.connection = connection

    def on_lost(self, handler: Callable[[str], None]) -> None:
        """Call `handler`, with its last words, some time after it has ended: a machine that ends ends it, too."""
        loop = asyncio.get_running_loop()
        self.exited.add_done_callback(lambda _: loop.call_later(deadlines.VOLUMES_LOST_S, handler, self.failure()))

    def kill(self) -> None:
        """Send SIGKILL, if it still runs. It is reaped by somebody else, so it may be gone and we not know it yet."""
        with contextlib.suppress(ProcessLookupError):
            super().kill()

    def failure(self) -> str:
        """One line on its end, with its last words."""
        return " | ".join((f"{self.name} has ended", *self.stderr.splitlines()[-4:]))

    async def stop(self) -> None:
        """End it, with all that it has forked: it leads a PID namespace. Raises HostError if it does not end."""
        self.connection.close()
        self.kill()
        try:
            async with asyncio.timeout(deadlines.QEMU_KILL_S):
                await asyncio.shield(self.exited)
        except TimeoutError:
            raise HostError(
                f"{self.name} (pid {self.pid}) did not end within {deadlines.QEMU_KILL_S:g} s of SIGKILL",
                hint="a volume's file system does not answer",
            ) from None


async def start(
    command: Sequence[str],
    volumes: Sequence[tuple[Volume, int]],
    *,
    directory: Path,
    source: Source,
    journal: Journal,
) -> Daemon:
    """Start `command` with these volumes, each with an open file of its source, which stay the caller's.

    `directory` is the shim's own. The caller sets the deadline. Raises HostError.
    """
    try:
        listener, connection = _connected(directory / "volumes")
    except OSError as error:
        raise HostError(f"cannot make a socket for virtiofsd: {error.strerror}") from error
    output, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(output, False)
    orders, answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    daemon: Daemon | None = None
    try:
        orders.setblocking(False)
        daemon = await _fork(source, orders, answer, output, connection)
        if daemon.ended:
            raise OSError(_GONE)
        record_child(journal, daemon.pid)
        message = launcher.message(
            [os.fsencode(word) for word in command],
            [(volume.name.encode(), _letters(volume)) for volume, _ in volumes],
        )
        socket.send_fds(orders, [message], [listener.fileno(), theirs, *(fd for _, fd in volumes)])
        if problem := await _hear(orders):
            raise HostError(f"cannot start virtiofsd: {problem}")
    except BaseException as error:
        if daemon is None:
            os.close(output)
            connection.close()
        else:
            await daemon.stop()
        if isinstance(error, OSError):
            raise HostError(f"cannot start virtiofsd: {error.strerror or error}") from error
        raise
    finally:
        for end in (listener, answer, orders):
            end.close()
        os.close(theirs)
    return daemon


def _connected(path: Path) -> tuple[socket.socket, socket.socket]:
    """A listening socket with one connection in its queue, and the other end of that. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        try:
            path.chmod(0o600)  # it does not listen yet
            listener.listen(1)
            connection.connect(os.fspath(path))
        finally:
            path.unlink()
    except BaseException:
        listener.close()
        connection.close()
        raise
    return listener, connection


async def _fork(
    source: Source, orders: socket.socket, answer: socket.socket, output: int, connection: socket.socket
) -> Daemon:
    """What is to become virtiofsd, and waits for `orders`. `output` is its own then. Raises OSError."""
    try:
        socket.send_fds(source.orders, [VOLUMES], [answer.fileno()])
    except ConnectionError as error:
        raise OSError(f"process {source.pid}, which forks it, has ended") from error
    answer.close()
    pid, _, problem = (await _hear(orders)).partition("\n")
    if not pid:
        raise OSError(problem or f"process {source.pid}, which forks it, does not")
    # Before anything could be sent to it: its number may be somebody else's by now.
    checked = open_marked(int(pid), source.marker.encode())
    if checked is None:
        raise OSError(_GONE)
    os.close(checked)
    return Daemon(int(pid), output, connection)


async def _hear(orders: socket.socket) -> str:
    """The next message; empty at the end."""
    await readable(orders.fileno())
    return orders.recv(4096).decode(errors="replace")


def _letters(volume: Volume) -> bytes:
    letters = b"-"
    for has, letter in (
        (volume.read_only, launcher.READ_ONLY),
        (volume.recursive, launcher.RECURSIVE),
        (volume.is_file, launcher.FILE),
        (volume.follows, launcher.FOLLOWS),
    ):
        letters += letter if has else b""
    return letters
