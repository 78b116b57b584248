"""The shim's connection to the kernel about the links, addresses, routes and traffic control of one network namespace.

rtnetlink(7), upon our own codec (`netlink/`), because a library's import is most of what it costs: docs/decisions/0022.
A socket belongs to the namespace in which it was opened, and can be used from anywhere.

Import-light: `delete` takes back by it what a killed shim has left (shim/network/tap.py).
"""

from __future__ import annotations

import _socket
import errno

from netlink.message import (
    DATAGRAM_BYTES,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    SOL_NETLINK,
    messages,
    packed,
    verdict,
)

# The name is what type checkers look for; importing it from `typing` would cost the import (shim/entry.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_ROUTE = 0
# A dump that another's change has come into is asked for again.
_DUMPS_MAX = 20


class Rtnetlink:
    """A connection to the kernel about the network namespace of the thread that makes it. For one thread at a time."""

    def __init__(self) -> None:
        self._socket = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, _ROUTE)
        self._number = 0
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Have the kernel do one thing. Raises OSError with the kernel's words, where it has any."""
        self._send(kind, NLM_F_ACK | flags, body)
        for _ in self._answers():
            pass

    def ask(self, kind: int, body: bytes) -> bytes:
        """One thing of the kernel's: its message without the header. Raises OSError where there is no such thing."""
        self._send(kind, NLM_F_ACK, body)
        (found,) = self._answers()
        return found

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """Everything of one kind: the messages without their headers. Raises OSError."""
        for _ in range(_DUMPS_MAX):
            self._send(kind, NLM_F_DUMP, body)
            try:
                return list(self._answers())
            except InterruptedError:
                continue
        raise OSError(errno.EAGAIN, "the namespace changes faster than it can be read")

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._number += 1
        self._socket.send(packed(kind, flags, self._number, body))

    def _answers(self) -> Iterator[bytes]:
        """What the kernel answers to the last question. Raises InterruptedError for a dump that is not of one piece."""
        interrupted = False
        while True:
            for message in messages(self._socket.recv(DATAGRAM_BYTES)):
                if message.sequence != self._number:
                    continue
                interrupted = interrupted or bool(message.flags & NLM_F_DUMP_INTR)
                if (said := verdict(message)) is None:
                    yield message.body
                    continue
                number, words = said
                if number:
                    raise OSError(number, words)
                if interrupted:
                    raise InterruptedError
                return
