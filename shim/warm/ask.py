"""`start`'s side of the warm parent: ask for a shim, hand its answer to containerd, let it go.

Import-light, for it is paid once per container: `_socket` is compiled into the interpreter,
`socket` would cost 4 ms. Whatever goes wrong before the child is ready means that `start`
makes the shim itself. It hangs up then, and no child becomes a daemon that is not told to.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from shim.warm import message
from shim.warm.message import MessageError

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# From the connection until a child has it: a fork of the service. With a busy host, hundreds of milliseconds.
_TAKEN_S = 1.0
# The child's work: the lock of an old shim (5 s), what that has left (2 s for each of its processes).
_READY_S = 15.0
_GO_S = 1.0


class Unavailable(Exception):
    """There is no shim to be had from the service; the text says why.

    `answered`: containerd has been given the answer, and the shim that was to serve there has ended.
    """

    def __init__(self, reason: str, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.answered = answered


class StartFailed(Exception):
    """The shim cannot be made; the text is for the user."""


def ask(words: Sequence[str], stdin: bytes) -> None:
    """Have the service make the shim of this command line, and print the answer for containerd.

    Raises Unavailable where it has to be made otherwise, StartFailed where it cannot be made, and
    OSError where the answer cannot be printed; nothing is left then.
    """
    path = os.environ.get(message.SOCKET_VARIABLE, message.SOCKET_PATH)
    if not path:
        raise Unavailable(f"{message.SOCKET_VARIABLE} is empty")
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        answer = _ready(sock, path, _request(words, stdin))
        try:
            os.write(1, answer)
        except OSError:
            _await_undoing(sock)
            raise
        try:
            message.send(sock, message.pack(message.GO), time.monotonic() + _GO_S)
        except MessageError as error:
            raise Unavailable(f"{path}: the shim ended before it could serve: {error}", answered=True) from None
    finally:
        sock.close()


def _request(words: Sequence[str], stdin: bytes) -> bytes:
    environment = [name + b"=" + value for name, value in os.environb.items()]
    return message.pack(
        message.REQUEST,
        os.fsencode(packages()),
        message.joined([os.fsencode(word) for word in words]),
        message.joined(environment),
        stdin,
    )


def packages() -> str:
    """The directory that our code comes from, without symbolic links."""
    return os.path.realpath(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))


def _ready(sock: _socket.socket, path: str, request: bytes) -> bytes:
    """Connect and ask; the answer for containerd, once a child is ready."""
    try:
        sock.settimeout(_TAKEN_S)
        sock.connect(path)
        _check_is_root(sock, path)
        deadline = time.monotonic() + _TAKEN_S
        message.send(sock, request, deadline)
        taken = message.receive(sock, deadline)
        kind, *rest = message.receive(sock, time.monotonic() + _READY_S) if taken == [message.TAKEN] else taken
    except (OSError, MessageError) as error:
        raise Unavailable(f"{path}: {error}") from None
    text = rest[0] if rest else b""
    if kind == message.READY:
        return text
    if kind == message.FAILED:
        raise StartFailed(os.fsdecode(text))
    raise Unavailable(f"{path}: {os.fsdecode(kind)} {os.fsdecode(text)}")


def _check_is_root(sock: _socket.socket, path: str) -> None:
    """What we send has our environment in it. struct ucred: pid, uid, gid (unix(7))."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], sys.byteorder)
    if uid != 0:
        raise Unavailable(f"{path}: it is served by user {uid}")


def _await_undoing(sock: _socket.socket) -> None:
    """Tell the child that it is not wanted, and wait until it has undone everything and ended."""
    try:
        sock.shutdown(_socket.SHUT_WR)
        message.receive(sock, time.monotonic() + _READY_S)
    except (OSError, MessageError):
        return
