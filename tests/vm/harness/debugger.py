"""A few words of gdb's remote serial protocol, for a test that stands where gdb would.

https://sourceware.org/gdb/current/onlinedocs/gdb.html/Remote-Protocol.html
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_DEADLINE_S: Final = 30.0
_PIECE: Final = 4096


class Debugger:
    """A connection to a gdbstub."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._came = b""

    def ask(self, packet: bytes) -> bytes:
        """Send one packet; the answer's contents. That the machine has stopped is told unasked, too: passed over."""
        self._sock.sendall(b"$%s#%02x" % (packet, sum(packet) % 256))
        while True:
            head, start, rest = self._came.partition(b"$")
            body, end, after = rest.partition(b"#")
            if start and end and len(after) >= 2:
                assert int(after[:2], 16) == sum(body) % 256
                self._came = after[2:]
                self._sock.sendall(b"+")
                if packet == b"?" or not body.startswith(b"T"):
                    return body
                continue
            assert not head.startswith(b"-"), "the stub did not understand"
            data = self._sock.recv(_PIECE)
            assert data, "the stub hung up"
            self._came += data

    def register(self, number: int) -> int:
        """A general register of the stopped CPU, or, with 16, its instruction pointer: x86_64 has them so in `g`."""
        return int.from_bytes(bytes.fromhex(self.ask(b"g").decode())[8 * number : 8 * number + 8], "little")


@contextmanager
def attached(path: Path) -> Iterator[Debugger]:
    """A debugger at the socket `path`; what it has stopped goes on when it leaves."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_DEADLINE_S)
        sock.connect(str(path))
        debugger = Debugger(sock)
        yield debugger
        assert debugger.ask(b"D") == b"OK"
