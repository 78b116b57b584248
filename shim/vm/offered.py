"""The guest's console as a socket in the machine's directory, for `qemubox console`: root's alone.

Several may read, one of them writes: the first that has come since there was none. What a client gets first is a byte,
WRITER or READER, which says what it is, then the console's last lines, then what the guest prints.

The guest's output waits for nobody: what a client does not take, and the kernel does not keep for it (200 KiB), ends
its connection. Input waits for the guest, 4 KiB of it, and so does who types more.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

FILE_NAME: Final = "console.sock"
WRITER: Final = b"W"
READER: Final = b"R"
CLIENTS_MOST: Final = 8
_PIECE: Final = 4096
# struct ucred, unix(7): pid, uid, gid.
_CREDENTIALS: Final = struct.Struct("iII")


class Offered:
    """`guest` is our end of the serial line, which stays its owner's; `tail` gives the console's last bytes."""

    def __init__(self, path: Path, guest: socket.socket, tail: Callable[[], bytes]) -> None:
        """Listen at `path`. Raises OSError, also for a path that is too long for a socket (unix(7), 107 bytes)."""
        self.path = path
        self._guest = guest
        self._tail = tail
        self._loop = asyncio.get_running_loop()
        self._clients: list[socket.socket] = []
        self._writer: socket.socket | None = None
        # What the guest has not taken yet; nothing is read from the writer meanwhile.
        self._input = b""
        self._listener = listening(path)
        self._loop.add_reader(self._listener, self._accept)

    def tell(self, data: bytes) -> None:
        """The guest has printed this."""
        for client in tuple(self._clients):
            self._send(client, data)

    def close(self) -> None:
        """Hang up, and take the socket away. Before the guest's end is closed."""
        for client in tuple(self._clients):
            self._drop(client)
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        _pid, uid, _gid = _CREDENTIALS.unpack(
            client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid != os.geteuid() or len(self._clients) >= CLIENTS_MOST:
            client.close()
            return
        client.setblocking(False)
        self._clients.append(client)
        if self._writer is None:
            self._writer = client
        self._loop.add_reader(client, self._read, client)
        self._send(client, (WRITER if client is self._writer else READER) + self._tail())

    def _send(self, client: socket.socket, data: bytes) -> None:
        try:
            sent = client.send(data, socket.MSG_NOSIGNAL)
        except OSError:  # it is gone, or does not read
            sent = -1
        if sent != len(data):
            self._drop(client)

    def _read(self, client: socket.socket) -> None:
        try:
            data = client.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
        elif client is self._writer:
            self._input = data
            self._loop.remove_reader(client)
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the guest what it takes of the input, and read on once it has all."""
        try:
            sent = self._guest.send(self._input, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:  # QEMU is gone
            sent = len(self._input)
        self._input = self._input[sent:]
        if self._input:
            self._loop.add_writer(self._guest, self._pass_on)
            return
        self._loop.remove_writer(self._guest)
        if self._writer is not None:
            self._loop.add_reader(self._writer, self._read, self._writer)

    def _drop(self, client: socket.socket) -> None:
        if client is self._writer:
            self._writer, self._input = None, b""
            self._loop.remove_writer(self._guest)
        self._clients.remove(client)
        self._loop.remove_reader(client)
        client.close()


def listening(path: Path) -> socket.socket:
    """A listening unix socket, non-blocking, that its owner alone may connect to. Raises OSError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        # Not by the umask: that is the whole process's, and a hook that a thread starts just then would have it.
        path.chmod(0o600)  # it does not listen yet
        listener.listen(CLIENTS_MOST)
    except BaseException:
        listener.close()
        raise
    return listener
