"""Streams to a container and back: what was sent is what comes, by TCP and by UDP.

In the container socat gives back what it gets. The other end is this process, with sockets of a network namespace of
the cell's (harness.netns).
"""

import hashlib
import socket
import threading
from pathlib import Path
from typing import Final

from harness.deadline import eventually
from harness.netns import within

PORT: Final = 7007
_LISTEN: Final = f"LISTEN:{PORT},ipv6only=0,fork"
SERVE: Final = (
    # One socket for both families each. A connection is cat's own: what stands between can wait for itself.
    f"socat TCP6-{_LISTEN} EXEC:cat,nofork </dev/null >/dev/null 2>&1 &"
    f" socat -b 65536 UDP6-{_LISTEN} PIPE </dev/null >/dev/null 2>&1 &"
)
"""A line of shell for a container of the image NETWORK: it goes on by itself."""

_DEADLINE_S: Final = 30.0
_READY_DEADLINE_S: Final = 30.0
_PIECE: Final = 1 << 16


def ready(netns: Path, address: str, port: int = PORT) -> None:
    """Return when the server echoes, as seen from that namespace: whoever forwards connections takes them before."""

    def echoes() -> bool:
        try:
            with connected(netns, address, port) as sock:
                sock.sendall(b"?")
                return sock.recv(1) == b"?"
        except OSError:
            return False

    eventually(echoes, f"{address} port {port} answers", _READY_DEADLINE_S)


def connected(netns: Path, address: str, port: int = PORT) -> socket.socket:
    """A TCP connection from that namespace. Raises OSError."""
    return within(netns, lambda: socket.create_connection((address, port), timeout=_DEADLINE_S))


def tcp(netns: Path, address: str, size: int, port: int = PORT) -> None:
    """So many bytes there and back on one connection, both ways at once; the same must come."""
    data = _bytes(size)
    with connected(netns, address, port) as sock:
        sender = threading.Thread(target=_send, args=(sock, data))
        sender.start()
        got = hashlib.sha256()
        left = size
        while left and (piece := sock.recv(_PIECE)):
            got.update(piece)
            left -= len(piece)
        sender.join()
    assert (left, got.digest()) == (0, hashlib.sha256(data).digest()), f"{size} bytes by TCP to {address}: {left} lost"


def udp(netns: Path, address: str, sizes: tuple[int, ...], port: int = PORT) -> None:
    """Datagrams of these sizes there and back, one after the other; each must come, and be the same."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with within(netns, lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.settimeout(_DEADLINE_S)
        sock.connect((address, port))
        for size in sizes:
            data = _bytes(size)
            sock.send(data)
            assert sock.recv(_PIECE) == data, f"a datagram of {size} bytes to {address} came back as another"


def _send(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def _bytes(size: int) -> bytes:
    """The same for a size; no two places alike, so that pieces that change places are seen."""
    return hashlib.shake_128(size.to_bytes(8, "big")).digest(size)
