"""Terminals: crun makes them and hands over their master ends through a socket (`--console-socket`).

A process may close its terminal and go on, and open it again much later, or leave that to others: a system's first
process does, for whom it is the console. A reader of the master end is told of the end (EIO) whenever nobody has the
other one open, and when it was hung up (vhangup(2), or the end of a session). So we hold the other end open, too, as
long as the process lives.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

from vminitd import deadlines
from vminitd.errors import CrunError

# Opens the other end of a terminal by its master end, wherever its name is (ioctl_tty(2), since Linux 4.13).
_TIOCGPTPEER = 0x5441
_WINSIZE = struct.Struct("HHHH")
_NAME_BYTES = 4096


class ConsoleSocket:
    """A listening unix socket for one terminal."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(path)
        self._listener.listen(1)

    async def receive(self) -> int:
        """The non-blocking descriptor of the terminal's master end. Raises CrunError when none comes."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadlines.CONSOLE):
                connection, _ = await loop.sock_accept(self._listener)
                with connection:
                    # The message is the terminal's name and one descriptor; one byte of it is enough to wait for.
                    await _readable(connection)
                    _, descriptors, _, _ = socket.recv_fds(connection, _NAME_BYTES, 1)
        except TimeoutError:
            raise CrunError(f"crun did not hand over the terminal within {deadlines.CONSOLE:g} s") from None
        if not descriptors:
            raise CrunError("crun did not hand over the terminal")
        os.set_inheritable(descriptors[0], False)
        os.set_blocking(descriptors[0], False)
        return descriptors[0]

    def close(self) -> None:
        self._listener.close()
        os.unlink(self.path)


@contextmanager
def console_socket(path: str) -> Iterator[ConsoleSocket]:
    """A ConsoleSocket at `path`, which is removed afterwards."""
    console = ConsoleSocket(path)
    try:
        yield console
    finally:
        console.close()


class HeldTerminal:
    """Holds the other end of the terminal `master` open until `let_go`. Raises OSError if it cannot be opened."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._peer = self._open()

    def reopen(self) -> bool:
        """After EIO from the master end: opens the other one anew. False once it was let go: that is the end."""
        if self._peer < 0:
            return False
        fresh = self._open()
        os.close(self._peer)
        self._peer = fresh
        return True

    def let_go(self) -> None:
        """Closes it; more than once does nothing. Before the master end is closed."""
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1

    def _open(self) -> int:
        # The flags are an argument by value; a bare number is taken as that.
        return fcntl.ioctl(self._master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)


async def _readable(sock: socket.socket) -> None:
    """Returns when there is something to read."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(sock, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(sock)


def resize(master: int, width: int, height: int) -> None:
    """Sets the terminal's size in characters; its foreground processes get SIGWINCH: tty_ioctl(4). Raises OSError."""
    fcntl.ioctl(master, termios.TIOCSWINSZ, _WINSIZE.pack(height, width, 0, 0))
