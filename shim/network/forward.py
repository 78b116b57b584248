"""Connections that a process in a container's network namespace makes to a local address, led to the guest.

The kernel has accepted such a connection before we know of it (shim/network/lookup.py): what the
guest refuses is reset at once. What it takes is carried by two streams as a process's stdin and
stdout are: each half ends by itself, nothing is lost, and who does not read stops who writes.
A reset at one end is one at the other.
"""

import asyncio
import functools
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from shim.accepting import accept
from shim.errors import HostError, QemuboxError
from shim.log import Logger
from shim.network import lookup
from shim.relay import Streams, relay_input, relay_output

# At once. Where streams are virtio-serial ports there are 62 of them: thirty are left for processes.
MOST: Final = 16
# struct linger: closing resets the connection at once, tcp(7).
_RESET: Final = struct.pack("ii", 1, 0)

Connect = Callable[[str, int, Streams], Awaitable[None]]
"""Sandbox.forward: connect to that address and port in the guest."""


class Forwarding:
    """Made by `open`; it holds a few descriptors, and tasks of the event loop, until `close`."""

    def __init__(self, listeners: lookup.Lookup | None, connect: Connect, log: Logger) -> None:
        self._lookup = listeners
        self._connect = connect
        self._log = log
        self._full = False
        self._carrying: set[asyncio.Task[None]] = set()
        self._accepting = [
            asyncio.create_task(self._accept_all(listener), name="accept for the guest")
            for listener in (listeners.listeners if listeners is not None else ())
        ]

    @classmethod
    async def open(cls, netns: int, connect: Connect, log: Logger) -> "Forwarding":
        """Have all TCP connections to local addresses of the open network namespace `netns` go to the guest.

        Where the kernel does not let us that is a warning in the log, and they are refused as if we were not there.
        """
        try:
            return cls(await asyncio.to_thread(lookup.take_over, netns), connect, log)
        except HostError as error:
            log.warning("no port forwarding to localhost", error=str(error))
            return cls(None, connect, log)

    async def close(self) -> None:
        """The namespace is as it was, and what is still carried is reset. More than once does nothing."""
        tasks = [*self._accepting, *self._carrying]
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:  # not before: the loop would take whoever comes by a listener's number for that
            if self._lookup is not None:
                self._lookup.close()

    async def _accept_all(self, listener: socket.socket) -> None:
        while True:
            try:
                client = await accept(listener, self._complain)
            except OSError as error:
                self._log.error("connections to localhost cannot be accepted", error=error.strerror)
                return
            if len(self._carrying) >= MOST:
                if not self._full:
                    self._complain(f"{MOST} connections to localhost at once: no more for now")
                self._full = True
                _reset(client)
                continue
            self._full = False
            task = asyncio.create_task(self._serve(client), name="carry to the guest")
            self._carrying.add(task)
            task.add_done_callback(functools.partial(self._ended, client))

    def _ended(self, client: socket.socket, task: asyncio.Task[None]) -> None:
        self._carrying.discard(task)
        if client.fileno() >= 0:  # it was cancelled before its first step
            _reset(client)

    def _complain(self, what: str) -> None:
        self._log.warning(what)

    async def _serve(self, client: socket.socket) -> None:
        """One connection, from its acceptance to its end."""
        ends = _Ends(client)
        try:
            await self._lead(client, ends)
        finally:
            await ends.close()

    async def _lead(self, client: socket.socket, ends: "_Ends") -> None:
        address, port = client.getsockname()[:2]
        # A link-local address has its interface behind it, by its number or by a name: the guest knows better.
        address = address.partition("%")[0]
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._connect(address, port, ends)
            await ends.carried()
        except QemuboxError as error:
            self._log.debug("no connection to the guest", address=address, port=port, error=str(error))
        except OSError as error:
            self._log.debug("a connection to the guest was reset", address=address, port=port, error=str(error))


class _Ends:
    """The client's two halves, as the host's ends of a stdin and a stdout, and the tasks that carry them."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._whole = False
        self._connections: list[socket.socket] = []
        self._halves: list[asyncio.Task[bool]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """See shim/relay.py, Streams."""
        return ("stdin", "stdout")

    def connect(self, name: str, connection: socket.socket) -> None:
        """See shim/relay.py, Streams."""
        self._connections.append(connection)
        half = relay_input(connection, _Half(self._client)) if name == "stdin" else self._bring(connection)
        self._halves.append(asyncio.create_task(half, name=name))

    async def _bring(self, connection: socket.socket) -> bool:
        """What the guest's server sends. Raises OSError where there is more of it than can be had, or brought."""
        if not await relay_output(connection, _Half(self._client)):
            raise ConnectionResetError("what the server sends was cut short")
        self._client.shutdown(socket.SHUT_WR)
        return True

    async def carried(self) -> None:
        """Return when both halves have ended.

        Raises OSError as soon as the client has reset the connection, or the server. One that takes no more
        has not: the client hears of that once it has all that the server has sent.
        """
        done, _ = await asyncio.wait(self._halves, return_when=asyncio.FIRST_EXCEPTION)
        self._whole = all(half.result() for half in done)

    async def close(self) -> None:
        """Close everything; the client, where not all was carried, by a reset."""
        for half in self._halves:
            half.cancel()
        try:
            await asyncio.gather(*self._halves, return_exceptions=True)
        finally:  # this, too, may be cancelled
            for connection in self._connections:
                connection.close()
            if self._whole:
                self._client.close()
            else:
                _reset(self._client)


class _Half:
    """One direction of a client's connection, as a source or as a sink."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client

    async def read(self, limit: int) -> bytes:
        """See shim/relay.py, Source."""
        return await asyncio.get_running_loop().sock_recv(self._client, limit)

    async def write(self, data: memoryview) -> None:
        """See shim/relay.py, Sink."""
        await asyncio.get_running_loop().sock_sendall(self._client, data)

    def close(self) -> None:
        """Nothing: the other half may go on, and how this one ends is said once that is known."""


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    client.close()
