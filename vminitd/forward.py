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
from vminitd.targets import targets

# struct linger: closing resets the connection at once, tcp(7).
_RESET = struct.pack("ii", 1, 0)


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
    refusal = "nobody was asked"
    try:
        async with asyncio.timeout(deadlines.FORWARD):
            for target in targets(address, port):
                server = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                try:
                    await asyncio.get_running_loop().sock_connect(server, target.sockaddr)
                    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    return server
                except OSError as error:
                    server.close()
                    # asyncio has words of its own where the kernel has given a number alone.
                    refusal = os.strerror(error.errno) if error.errno else str(error)
                except BaseException:
                    server.close()
                    raise
    except TimeoutError:
        refusal = f"no answer within {deadlines.FORWARD:g} s"
    raise PortError(f"cannot connect to port {port} of {address}: {refusal}")


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
