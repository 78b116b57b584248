"""The frames of a stdio connection: u32 big-endian length, then the bytes; length 0 ends the stream.

Pure, and the same for the shim and vminitd. The end is in the stream because what a peer
closes right after its last write may be lost on the way (virtio-vsock), and because a
closed connection could as well mean that the other side has died (docs/decisions/0002).
The greatest length there is ends it, too: there would be more, and it cannot be had, as of a
TCP connection that was reset (docs/decisions/0023).
"""

import struct
from collections.abc import Iterator
from typing import Final

HEADER: Final = struct.Struct(">I")
END: Final = HEADER.pack(0)
_BROKEN_SIZE: Final = 0xFFFF_FFFF
BROKEN: Final = HEADER.pack(_BROKEN_SIZE)


def header(size: int) -> bytes:
    """What stands before `size` bytes of data."""
    return HEADER.pack(size)


class FrameReader:
    """Cuts what arrives into data, however it was cut on the way. Holds no data itself."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self.ended = False
        self.broken = False

    @property
    def whole(self) -> bool:
        """Whether all that there is of the stream has come."""
        return self.ended and not self.broken

    def feed(self, received: memoryview) -> Iterator[memoryview]:
        """The data in `received`, as views of it. Sets `ended` at the end frame; what follows that is ignored.

        Sets `broken`, too, where that frame says that the stream was cut short.
        """
        while received and not self.ended:
            if self._left:
                piece, received = received[: self._left], received[self._left :]
                self._left -= len(piece)
                yield piece
                continue
            missing = HEADER.size - len(self._header)
            self._header += received[:missing]
            received = received[missing:]
            if len(self._header) == HEADER.size:
                (self._left,) = HEADER.unpack(self._header)
                self._header.clear()
                self.broken = self._left == _BROKEN_SIZE
                self.ended = self.broken or self._left == 0
