"""Connections from the host to ports of this machine, on which the containers' servers listen.

The host's side has accepted a connection already, and wants to know whether it can be served: so the port is connected
to first, and only then are the two streams opened that carry it. Each half ends by itself, as those of TCP do; a reset
on one side is one on the other.
"""

import asyncio
import os
import socket
import struct
from contextlib import suppress

from vminitd import deadlines, log
from vminitd.dial import Dial, dial_all
from vminitd.errors import PortError, RequestError
from vminitd.stdio import Wish
from vminitd.streams import Input, Output, Taken

_ADDRESSES = "/proc/net/if_inet6"
_MOST_PORT = 65535
# struct linger: closing resets the connection at once, tcp(7).
_RESET = struct.pack("ii", 1, 0)

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class Forwarder:
    """Carries every connection that the host asks for until both of its halves have ended."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._carrying: set[asyncio.Task[None]] = set()

    async def forward(self, address: str, port: int, wish: Wish) -> None:
        """Returns when the port has taken a connection, and `wish`, a stdin and a stdout, carries it.

        Raises RequestError; PortError with the kernel's words; KernelError where the host does not take the streams.
        """
        wish.check()
        if wish.terminal or wish.stderr or not wish.stdin or not wish.stdout:
            raise RequestError("a connection has a stdin and a stdout, and nothing else")
        server = await connect(address, port)
        try:
            streams = await dial_all(self._dial, {"stdin": wish.stdin, "stdout": wish.stdout})
        except BaseException:
            reset(server)
            raise
        task = asyncio.create_task(carry(server, streams["stdin"], streams["stdout"]), name=f"{address} port {port}")
        self._carrying.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._carrying.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.failure(f"the connection to {task.get_name()} broke", error)


async def connect(address: str, port: int) -> socket.socket:
    """A connection to a port of this machine. Raises RequestError or PortError."""
    if not 0 < port <= _MOST_PORT:
        raise RequestError(f"there is no TCP port {port}")
    failure = ""
    for family, target in targets(address, port):
        server = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(deadlines.FORWARD):
                await asyncio.get_running_loop().sock_connect(server, target)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            server.close()
            # Our own deadline has no number; asyncio has words of its own where the kernel has said but a number.
            words = os.strerror(error.errno) if error.errno else f"no answer within {deadlines.FORWARD:g} s"
            failure = failure or words
        except BaseException:
            server.close()
            raise
        else:
            return server
    raise PortError(f"cannot connect to port {port} of {address}: {failure}")


def targets(address: str, port: int) -> list[tuple[socket.AddressFamily, SocketAddress]]:
    """What is tried, in this order. Raises RequestError for what is no address.

    Who asks for localhost asks for 127.0.0.1, and then, if that refuses, for ::1: containerd does for port-forward.
    But on the host nothing has refused it.
    """
    six: SocketAddress = ("::1", port, 0, 0)
    if _is(socket.AF_INET, address):
        four = (socket.AF_INET, (address, port))
        return [four, (socket.AF_INET6, six)] if address == "127.0.0.1" else [four]
    if not _is(socket.AF_INET6, address):
        raise RequestError(f"{address!r} is no IP address")
    return [(socket.AF_INET6, (address, port, 0, _scope(socket.inet_pton(socket.AF_INET6, address))))]


def _is(family: socket.AddressFamily, address: str) -> bool:
    try:
        socket.inet_pton(family, address)
    except (OSError, ValueError):  # ValueError: a NUL in it
        return False
    return True


def _scope(address: bytes) -> int:
    """The index of the interface that has this link-local address; 0 for any other: ipv6(7)."""
    if address[0] != 0xFE or address[1] & 0xC0 != 0x80:
        return 0
    with suppress(FileNotFoundError), open(_ADDRESSES) as file:  # a kernel without IPv6 says so itself
        for line in file:
            words = line.split()
            if bytes.fromhex(words[0]) == address:
                return int(words[1], 16)
    return 0


async def carry(server: socket.socket, stdin: socket.socket, stdout: socket.socket) -> None:
    """Carries a connection until both of its halves have ended, or one has broken; closes all three."""
    # Not a pipe: that a server writes says nothing of whether it reads.
    sink = Input(os.dup(server.fileno()), stdin, pipe=False)
    source = Output(os.dup(server.fileno()), stdout, needed=True)
    try:
        async with asyncio.TaskGroup() as halves:
            halves.create_task(_to_server(server, sink, source))
            halves.create_task(_to_host(source))
    except* (ConnectionError, TimeoutError):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        sink.close()
        source.close()
        server.close()


async def _to_server(server: socket.socket, sink: Input, source: Output) -> None:
    """Raises ConnectionError where the rest cannot be had from the host: the server must not take it for the end."""
    taken = await sink.run()
    if taken is Taken.CUT:
        raise ConnectionResetError
    if taken is Taken.REFUSED:  # the server has reset the connection; what it sent before that still reaches the host
        source.break_off()
    else:
        with suppress(OSError):  # it has just ended by itself
            server.shutdown(socket.SHUT_WR)


async def _to_host(source: Output) -> None:
    """Raises ConnectionError where the connection is broken, at whichever end: the other half is over, too."""
    if not await source.run():
        raise ConnectionResetError


def reset(connection: socket.socket) -> None:
    """Closes a connection so that its peer knows that not all has come."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()
