"""The socket to the host: an ordinary vsock that never sends much at once.

Linux sends more than 32 KiB, less its own overhead, in a packet of several descriptors (since 6.12.40 or so), and
vhost-device-vsock 0.3.0 drops such a packet without a word: seen with 64 KiB, and in its source
(virtio-vsock 0.10.0, VsockPacket::from_tx_virtq_chain). A write that is cut short is what every user of a
non-blocking socket expects anyway.
"""

import socket
from collections.abc import Iterable
from itertools import chain

# The name is what type checkers look for; importing it from `typing` would cost the import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MOST_AT_ONCE = 28 << 10


class HostSocket(socket.socket):
    """`send` and `sendmsg`, which are all that asyncio writes with, take at most MOST_AT_ONCE bytes of it all."""

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        return super().send(memoryview(data)[:MOST_AT_ONCE], flags)

    def sendmsg(
        self,
        buffers: "Iterable[ReadableBuffer]",
        ancdata: "Iterable[tuple[int, int, ReadableBuffer]]" = (),
        flags: int = 0,
        address: object = None,
        /,
    ) -> int:
        return super().sendmsg([first_bytes(buffers)], ancdata, flags)


def first_bytes(buffers: "Iterable[ReadableBuffer]") -> "ReadableBuffer":
    """The beginning of all of them, at least something and at most MOST_AT_ONCE bytes. Pure."""
    views = (memoryview(buffer)[:MOST_AT_ONCE] for buffer in buffers)
    first = next((view for view in views if view), memoryview(b""))
    if len(first) >= MOST_AT_ONCE // 2:
        return first
    joined = bytearray()
    for view in chain((first,), views):
        joined += view[: MOST_AT_ONCE - len(joined)]
        if len(joined) == MOST_AT_ONCE:
            break
    return joined
