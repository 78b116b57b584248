"""How the guest comes by its connections: it dials the host, port = its own CID (api/guest.proto).

The vsock device may be plugged long after boot, when this machine is the clone of a template: until then the kernel
knows no CID of its own. The first 16 bytes tell the host which connection this is.
"""

import asyncio
import fcntl
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

from vminitd import deadlines
from vminitd.errors import KernelError
from vminitd.libc import set_socket_option
from vminitd.vsock import HostSocket

TOKEN_SIZE = 16
CONTROL_TOKEN = bytes(TOKEN_SIZE)

Dial = Callable[[bytes], Awaitable[socket.socket]]
"""Connects to the host and says the token."""

_IOCTL_VM_SOCKETS_GET_LOCAL_CID = 0x7B9  # _IO(7, 0xb9), linux/vm_sockets.h
_CID_ANY = 0xFFFF_FFFF
_SO_VM_SOCKETS_BUFFER_SIZE = 0
_SO_VM_SOCKETS_BUFFER_MAX_SIZE = 2
_SO_VM_SOCKETS_CONNECT_TIMEOUT = 6
_TIMEVAL = struct.Struct("qq")
# What the host may have under way to the guest on one connection; 256 KiB by default.
_WINDOW = 1 << 20


def local_cid() -> int | None:
    """This machine's CID, or None as long as it has no vsock device: vsock(7)."""
    try:
        fd = os.open("/dev/vsock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        (cid,) = struct.unpack("I", fcntl.ioctl(fd, _IOCTL_VM_SOCKETS_GET_LOCAL_CID, bytes(4)))
    finally:
        os.close(fd)
    # 0 to 2 are the hypervisor, the loopback and the host: never a machine's own.
    return int(cid) if socket.VMADDR_CID_HOST < cid < _CID_ANY else None


async def dial(token: bytes) -> socket.socket:
    """A connection to the host on which `token` has been sent.

    Raises KernelError if the host does not take it within deadlines.CONNECT.
    """
    cid = local_cid()
    if cid is None:
        raise KernelError("the machine has no vsock device to reach the host with")
    sock = HostSocket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.AF_VSOCK, _SO_VM_SOCKETS_BUFFER_MAX_SIZE, _WINDOW)
        sock.setsockopt(socket.AF_VSOCK, _SO_VM_SOCKETS_BUFFER_SIZE, _WINDOW)
        # The kernel gives up after 2 s by default, which an emulated machine on a busy host may need.
        set_socket_option(
            sock.fileno(), socket.AF_VSOCK, _SO_VM_SOCKETS_CONNECT_TIMEOUT, _TIMEVAL.pack(int(deadlines.CONNECT) + 1, 0)
        )
        async with asyncio.timeout(deadlines.CONNECT):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (socket.VMADDR_CID_HOST, cid))
            await loop.sock_sendall(sock, token)
    except OSError as error:  # TimeoutError is one
        sock.close()
        raise KernelError(f"the host does not accept a connection at vsock port {cid}: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock


async def dial_all(dial: Dial, tokens: Mapping[str, bytes]) -> dict[str, socket.socket]:
    """A connection for each of `tokens`, by their names; where one fails none is left open. Raises what `dial` does."""
    dialled = await asyncio.gather(*map(dial, tokens.values()), return_exceptions=True)
    connections = {name: sock for name, sock in zip(tokens, dialled, strict=True) if isinstance(sock, socket.socket)}
    for failure in dialled:
        if isinstance(failure, BaseException):
            for connection in connections.values():
                connection.close()
            raise failure
    return connections
