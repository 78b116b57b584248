"""A virtio-serial port in the place of a connected socket: /dev/vportNpM, found by the name that QEMU gave it.

A port is there before the machine runs, wants no device of its own, and lives in QEMU itself: no process on the host
shares the machine's memory for it (docs/decisions/0009). What it lacks against a socket is an end: QEMU does not tell
the host that a port was closed. So closing says it in the stream, by the frame that ends one (api/frames.py). The other
way round the kernel tells: a port that the host has left reads as ended (drivers/char/virtio_console.c).
"""

import errno
import os
import select
import socket
from collections.abc import Iterable
from contextlib import suppress

from api.frames import END
from vminitd.vsock import first_bytes

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

CLASS = "/sys/class/virtio-ports"
# Of the buffers that the kernel gives the host to fill. A read takes from one of them; readv(2) makes a read of each of
# its parts as long as they come full, so with parts of that size one call takes what there is.
_PAGE = 4096


def find(name: str, sys_class: str = CLASS) -> str | None:
    """The path of the port's device; None if it is not there (yet)."""
    try:
        ports = os.listdir(sys_class)
    except FileNotFoundError:  # a machine without the device
        return None
    for port in ports:
        with suppress(OSError), open(f"{sys_class}/{port}/name") as file:  # a port without a name has no such file
            if file.read().strip() == name:
                return f"/dev/{port}"
    return None


class Port(socket.socket):
    """An open port that asyncio takes for a connected, non-blocking stream socket.

    `farewell` is said at the end. Only one may have a port open: EBUSY is the OSError that a second one gets.
    """

    def __init__(self, path: str, farewell: bytes = END) -> None:
        self._farewell = farewell
        # The last buffer that was read into, and its parts: it is the same one again and again.
        self._buffer: WriteableBuffer | None = None
        self._parts: list[memoryview] = []
        port = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            # Python makes no socket object of anything else; so it gets a socket, whose place the port then takes. Of a
            # family whose peers nobody asks who they are.
            super().__init__(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            os.dup2(port, self.fileno(), inheritable=False)
        finally:
            os.close(port)

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        return os.read(self.fileno(), size)

    def recv_into(self, buffer: "WriteableBuffer", nbytes: int = 0, flags: int = 0) -> int:
        if nbytes:
            return os.readv(self.fileno(), [memoryview(buffer)[:nbytes]])
        if buffer is not self._buffer:
            view = memoryview(buffer)
            self._buffer, self._parts = buffer, [view[at : at + _PAGE] for at in range(0, len(view), _PAGE)]
        return os.readv(self.fileno(), self._parts)

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        """Raises BrokenPipeError once the host has left, where the kernel would let one wait for its return."""
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            if self._host_left():
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
            raise

    def sendmsg(
        self,
        buffers: "Iterable[ReadableBuffer]",
        ancdata: "Iterable[tuple[int, int, ReadableBuffer]]" = (),
        flags: int = 0,
        address: object = None,
        /,
    ) -> int:
        return self.send(first_bytes(buffers))

    def shutdown(self, how: int, /) -> None:
        """Nothing: a port has no half that could be closed alone."""

    def close(self) -> None:
        """Tell the host, and close; more than once does nothing."""
        if self.fileno() >= 0 and self._farewell:
            with suppress(OSError):
                os.write(self.fileno(), self._farewell)
        super().close()

    def _host_left(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))
