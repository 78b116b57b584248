"""vsock by the host's kernel: /dev/vhost-vsock.

The CID is taken by us, on the descriptor that QEMU gets: if another machine has it the
kernel says so (EADDRINUSE) and we draw another. QEMU sets the same CID once more, which
the kernel allows on the same descriptor. The kernel frees it when QEMU's copy closes.
"""

import asyncio
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from shim.errors import HostError, MachineError, MissingPartError, ResourceError
from shim.vm.acceptor import Acceptor
from shim.vm.vsock import KERNEL_DEVICE, TOKEN_TIMEOUT_S, KernelVsockDevice, random_cid

# _IOW(VHOST_VIRTIO 0xAF, 0x60, __u64), linux/vhost.h.
_VHOST_VSOCK_SET_GUEST_CID: Final = 0x4008AF60
_ATTEMPTS: Final = 16


class KernelVsock:
    """vsock.VsockBackend by /dev/vhost-vsock."""

    shared_memory = False

    def __init__(self) -> None:
        self._vhost_fd = -1
        self._acceptor: Acceptor | None = None

    async def prepare(self, timeout_s: float) -> KernelVsockDevice:
        """See VsockBackend. Nothing here waits, so the deadline is kept by itself."""
        try:
            self._vhost_fd = os.open(KERNEL_DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise MissingPartError(
                f"{KERNEL_DEVICE}: {error.strerror}", hint='load the module vhost_vsock, or set vsock.mode = "user"'
            ) from error
        cid = self._take_cid()
        listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        try:
            # Any local address: on a host that is itself a guest, CID 2 is another machine.
            listener.bind((socket.VMADDR_CID_ANY, cid))
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise HostError(f"vsock port {cid} cannot be listened on: {error.strerror}") from error
        self._acceptor = Acceptor(listener, admit=lambda peer: _is_guest(peer, cid), token_timeout_s=TOKEN_TIMEOUT_S)
        return KernelVsockDevice(cid, self._vhost_fd)

    def on_lost(self, handler: Callable[[str], None]) -> None:
        """See VsockBackend: the kernel is not lost."""

    def device_added(self) -> None:
        """See VsockBackend."""
        if self._vhost_fd >= 0:
            os.close(self._vhost_fd)
            self._vhost_fd = -1

    async def control(self, timeout_s: float) -> socket.socket:
        """See VsockBackend."""
        return await self._prepared().control(timeout_s)

    def expect(self, token: bytes) -> "asyncio.Future[socket.socket]":
        """See VsockBackend."""
        return self._prepared().expect(token)

    async def close(self, timeout_s: float) -> None:
        """See VsockBackend."""
        self.device_added()
        if self._acceptor is not None:
            await self._acceptor.close()

    def _prepared(self) -> Acceptor:
        if self._acceptor is None:
            raise MachineError("vsock is not prepared yet")
        return self._acceptor

    def _take_cid(self) -> int:
        for _ in range(_ATTEMPTS):
            cid = random_cid()
            try:
                fcntl.ioctl(self._vhost_fd, _VHOST_VSOCK_SET_GUEST_CID, struct.pack("Q", cid))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise HostError(f"{KERNEL_DEVICE}: CID {cid} is refused: {error.strerror}") from error
            return cid
        raise ResourceError(f"no free vsock CID found in {_ATTEMPTS} attempts")


def _is_guest(peer: socket.socket, cid: int) -> bool:
    """Whether a connection comes from the guest with this CID; the kernel fills it in, no guest can claim another."""
    try:
        return bool(peer.getpeername()[0] == cid)
    except OSError:
        return False
