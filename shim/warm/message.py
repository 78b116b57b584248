"""What `start` and a child of the service say to each other: lists of byte strings over a stream socket.

    start ─▶ child    REQUEST packages, words, environment, standard input
    child ─▶ start    TAKEN                   somebody is at work
    child ─▶ start    REFUSED reason          make it yourself
                   or FAILED line             it cannot be made; nothing is left of the try
                   or READY answer            all is there and listens; say GO
    start ─▶ child    GO                      containerd has its answer: be the daemon

Every number is four bytes, the most significant one first; a message is its length, then each
string with its length in front. `start` imports this: nothing but what is compiled in.
"""

from __future__ import annotations

import time

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable

SOCKET_PATH = "/run/qemubox/service.sock"
# Names another socket; empty: there is to be none.
SOCKET_VARIABLE = "QEMUBOX_SERVICE"

REQUEST, TAKEN, REFUSED, FAILED, READY, GO = b"request 1", b"taken", b"refused", b"failed", b"ready", b"go"

# The kernel's limit for arguments and environment together is 6 MiB (execve(2)), containerd's for standard input 10.
_LIMIT = 17 << 20


class MessageError(Exception):
    """The other side has hung up, is silent, or says what is no message."""


def pack(*strings: bytes) -> bytes:
    """A message as it goes over the socket."""
    body = joined(strings)
    return len(body).to_bytes(4, "big") + body


def joined(strings: Iterable[bytes]) -> bytes:
    """Byte strings as one."""
    return b"".join(len(string).to_bytes(4, "big") + string for string in strings)


def parted(data: bytes) -> list[bytes]:
    """The byte strings of `joined`. Raises MessageError."""
    strings = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if at + 4 > len(data) or end > len(data):
            raise MessageError(f"a string that ends at {end} in {len(data)} bytes")
        strings.append(data[at + 4 : end])
        at = end
    return strings


def receive(sock: socket, deadline: float) -> list[bytes]:
    """The next message, before time.monotonic() is `deadline`; never empty. Raises MessageError."""
    length = int.from_bytes(_receive(sock, 4, deadline), "big")
    if length > _LIMIT:
        raise MessageError(f"a message of {length} bytes; {_LIMIT} are allowed")
    strings = parted(_receive(sock, length, deadline))
    if not strings:
        raise MessageError("an empty message")
    return strings


def send(sock: socket, message: bytes, deadline: float) -> None:
    """Send what `pack` made. Raises MessageError."""
    try:
        sock.settimeout(_left(deadline))
        sock.sendall(message)
    except OSError as error:
        raise MessageError(f"cannot be sent: {error}") from None


def _receive(sock: socket, length: int, deadline: float) -> bytes:
    data = b""
    while len(data) < length:
        try:
            sock.settimeout(_left(deadline))
            more = sock.recv(min(length - len(data), 1 << 20))
        except OSError as error:
            raise MessageError(str(error)) from None
        if not more:
            raise MessageError("it has hung up")
        data += more
    return data


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left
