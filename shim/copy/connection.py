"""A command's connection to a shim: the socket where containerd calls the task service, which is root's alone."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from shim import deadlines
from shim.errors import HostError, NotFoundError
from ttrpc import Client, ConnectionClosed


@contextlib.asynccontextmanager
async def connection(path: str, *, deadline_s: float = deadlines.DIAL_S) -> AsyncIterator[Client]:
    """A client of the shim that listens at `path`; the deadline is for the connection, and no call's.

    Raises NotFoundError where nobody listens, HostError where the shim may not be called, does not answer in time, or
    hangs up before the block ends.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        async with asyncio.timeout(deadline_s):
            await asyncio.get_running_loop().sock_connect(sock, path)
    except (FileNotFoundError, ConnectionError) as error:
        sock.close()
        raise NotFoundError(f"the container's shim is not there any more: {error.strerror}") from error
    except PermissionError as error:
        sock.close()
        raise HostError(f"{path}: {error.strerror}", hint="machines are root's") from error
    except TimeoutError:
        sock.close()
        raise HostError(f"the shim takes no connection within {deadline_s:g} s", hint="see its log") from None
    except BaseException:
        sock.close()
        raise
    client = Client(sock)
    try:
        yield client
    except ConnectionClosed as error:
        raise HostError("the shim has closed the connection: its container is gone") from error
    finally:
        await client.close()
