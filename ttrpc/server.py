"""A server: services under their names, and any number of connections that may call them.

serving ── close() ──▶ closing: no new connection, requests refused, handlers may end ──▶ closed
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Iterable, Mapping

from ttrpc.call import OnError
from ttrpc.connection import CANCEL_S, Connection
from ttrpc.context import Peer
from ttrpc.service import Method, Service
from ttrpc.status import ConnectionClosed
from ttrpc.wire import Wire

LINGER_S = 1.0
"""How long a closing server waits for a client to take the last answers and close its side."""

ACCEPT_RETRY_S = 0.1
"""Pause when the system has no file descriptor or memory for a new connection."""

_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_ABORTED = {errno.ECONNABORTED, errno.EPROTO}


def log_error(where: str, error: BaseException) -> None:
    """What happens with errors unless `Server` is told otherwise: the logger "ttrpc"."""
    logging.getLogger("ttrpc").error("%s: %s", where, error, exc_info=error)


class Server:
    """Serves `services` on connections that it is given or accepts."""

    def __init__(
        self,
        services: Iterable[Service],
        *,
        aliases: Mapping[str, str] | None = None,
        allowed_uid: int | None = None,
        on_error: OnError = log_error,
    ) -> None:
        """`aliases` maps further names of services to names that are served: {"pkg.v2.Task": "pkg.v3.Task"}.

        With `allowed_uid`, only unix sockets whose peer has that effective user id are served; others are closed.
        `on_error` is told where and what: exceptions that handlers should not have raised (the client gets UNKNOWN
        and their text), connections refused, and bytes that are not ttrpc.

        Raises ValueError if two services have one name, or an alias stands for a service that is not served.
        """
        self._methods = _table(services, aliases or {})
        self._allowed_uid = allowed_uid
        self._on_error = on_error
        self._closing = False
        self._connections: set[Connection] = set()
        self._accepting: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        """Serves a connected stream socket, and owns it.

        Returns when the peer is gone or the server closed, the handlers of its calls are cancelled and the socket
        is closed. Never raises for what the peer does.
        """
        try:
            peer = self._admit(sock)
            wire = await Wire.open(sock)
        except (PermissionError, ConnectionClosed) as error:
            sock.close()
            self._report("connection refused", error)
            return
        connection = Connection(wire, peer, self._methods, self._report)
        if self._closing:
            connection.abort()
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def serve_listener(self, listener: socket.socket) -> None:
        """Accepts connections and serves each in a task of its own. Owns the listener and closes it at the end.

        Returns when the server is closed. Raises OSError if the listener itself fails. If cancelled, it stops
        accepting; the connections go on.
        """
        listener.setblocking(False)
        accepting = asyncio.get_running_loop().create_task(self._accept(listener), name="ttrpc accept")
        self._accepting.add(accepting)
        try:
            if not self._closing:
                await asyncio.wait([accepting])
        finally:
            accepting.cancel()
            self._accepting.discard(accepting)
            try:
                # Until then the loop watches the listener: whoever came by its number would be taken for it.
                if not accepting.done():
                    await asyncio.wait([accepting])
            finally:
                listener.close()
        if not self._closing:
            await accepting

    async def close(self, grace_s: float) -> None:
        """Stops: closes the listeners, refuses requests, gives handlers `grace_s` seconds, cancels the rest.

        What was answered is delivered before the connections are closed, to clients that read. Not to be awaited by
        a handler, which would wait for itself.
        """
        self._closing = True
        for accepting in self._accepting:
            accepting.cancel()
        # `serve_listener` waits for the same tasks since before, so it has closed its listener when this returns.
        await _wait(self._accepting, CANCEL_S)
        connections = list(self._connections)
        try:
            for connection in connections:
                connection.refuse()
            await _wait([task for connection in connections for task in connection.tasks()], grace_s)
            left = [task for connection in connections for task in connection.tasks()]
            for connection in connections:
                connection.drop_calls()
            await _wait(left, CANCEL_S)
            for connection in connections:
                connection.end()
            await _wait([connection.ended for connection in connections], LINGER_S)
        finally:
            for connection in connections:
                connection.abort()
        await _wait([connection.ended for connection in connections], CANCEL_S)

    def _admit(self, sock: socket.socket) -> Peer:
        """Who it is. Raises PermissionError if the peer may not call, ConnectionClosed if it is gone."""
        try:
            peer = Peer.of(sock)
        except OSError as error:
            raise ConnectionClosed(f"the peer is gone: {error}") from error
        if self._allowed_uid is not None and peer.uid != self._allowed_uid:
            raise PermissionError(f"only user id {self._allowed_uid} may connect, not {peer}")
        return peer

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _address = await loop.sock_accept(listener)
            except OSError as error:
                if error.errno in _ABORTED:
                    continue
                if error.errno not in _SCARCE:
                    raise
                self._report("accept", error)
                await asyncio.sleep(ACCEPT_RETRY_S)
                continue
            self._serve_in_task(sock)

    def _serve_in_task(self, sock: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self.serve(sock), name="ttrpc connection")
        self._tasks.add(task)  # the loop alone would not keep it

        def done(_task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            sock.close()  # nobody else does, if the task was cancelled before its first step
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._report("connection", error)

        task.add_done_callback(done)

    def _report(self, where: str, error: BaseException) -> None:
        """Calls `on_error` later, from the loop: what it does or raises harms no call and no connection."""
        asyncio.get_running_loop().call_soon(self._on_error, where, error)


async def _wait(what: "Iterable[asyncio.Future[None]]", timeout_s: float) -> None:
    waiting = list(what)
    if waiting:
        await asyncio.wait(waiting, timeout=timeout_s)


def _table(services: Iterable[Service], aliases: Mapping[str, str]) -> dict[str, Method]:
    """All methods by path, under their services' names and the further ones."""
    table: dict[str, Method] = {}
    for service in services:
        for path, method in service.service_methods().items():
            if path in table:
                raise ValueError(f"{path} is served twice")
            table[path] = method
    for alias, name in aliases.items():
        prefix = f"/{name}/"
        methods = {path.removeprefix(prefix): method for path, method in table.items() if path.startswith(prefix)}
        if not methods:
            raise ValueError(f"alias {alias}: no service {name} is served")
        for short, method in methods.items():
            if table.setdefault(f"/{alias}/{short}", method) is not method:
                raise ValueError(f"alias {alias}: a service of that name is served")
    return table
