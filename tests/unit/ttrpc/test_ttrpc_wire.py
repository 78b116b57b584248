"""What the connection asks of its socket."""

import socket

from ttrpc.frame import FrameType, encode
from ttrpc.wire import READ, Wire


class Watched(socket.socket):
    """Keeps how much was asked for at a time."""

    def __init__(self, fd: int) -> None:
        super().__init__(fileno=fd)
        self.asked: set[int] = set()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self.asked.add(size)
        return super().recv(size, flags)


async def test_no_more_is_asked_for_at_a_time_than_malloc_has_at_hand() -> None:
    """From 128 KiB on, glibc maps memory for each buffer and unmaps it again (mallopt(3), M_MMAP_THRESHOLD)."""
    ours, theirs = socket.socketpair()
    watched = Watched(ours.detach())
    wire = await Wire.open(watched)
    data = b"x" * (READ + 1000)
    theirs.sendall(encode(1, FrameType.REQUEST, 0, b"short"))
    frame = await wire.receive()
    assert frame is not None
    theirs.setblocking(False)
    theirs.send(encode(3, FrameType.REQUEST, 0, data))
    frame = await wire.receive()
    assert frame is not None
    assert frame[3:] == (data,)
    assert watched.asked == {READ}
    assert READ < 128 << 10
    wire.abort()
    theirs.close()
