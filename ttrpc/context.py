"""What a handler knows of its call beside the request."""

import socket
import struct
import time
from collections.abc import Mapping
from typing import NamedTuple

_UCRED = struct.Struct("iII")


class Peer(NamedTuple):
    """Who is at the other end: pid, uid and gid of a unix socket's, CID and port of a vsock's."""

    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    cid: int | None = None
    port: int | None = None

    @classmethod
    def of(cls, sock: socket.socket) -> "Peer":
        """The peer of a connected socket. Raises OSError if it is gone already.

        For a unix socket these are the credentials at the time of connect(2): SO_PEERCRED in unix(7).
        """
        if sock.family == socket.AF_UNIX:
            pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
            return cls(pid=pid, uid=uid, gid=gid)
        if sock.family == socket.AF_VSOCK:
            cid, port = sock.getpeername()
            return cls(cid=cid, port=port)
        return cls()

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self._asdict().items() if value is not None) or "unknown"


class Context:
    """One call, as its handler sees it.

    `metadata` has lower-case keys. A handler need not look at the deadline: it is cancelled when that is over.
    """

    __slots__ = ("_deadline", "metadata", "method", "peer")

    def __init__(
        self,
        *,
        method: str = "",
        metadata: Mapping[str, list[str]] | None = None,
        timeout_s: float | None = None,
        peer: Peer | None = None,
    ) -> None:
        self.method = method
        """ "/package.Service/Method", as the client named it."""
        self.metadata: Mapping[str, list[str]] = metadata if metadata is not None else {}
        self.peer = peer if peer is not None else Peer()
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def deadline_s(self) -> float | None:
        """Seconds that the client still waits, not below 0; None if it waits for ever."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
