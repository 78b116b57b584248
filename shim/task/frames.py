"""The frames of a stdio connection: u32 big-endian length, then the bytes; length 0 ends the stream.

Pure. api/guest.proto says why the end is in the stream and not a closed connection:
what a peer closes right after its last write may be lost on the way (virtio-vsock).
"""

import struct
from collections.abc import Iterator
from typing import Final

END: Final = b"\0\0\0\0"
_HEADER: Final = struct.Struct(">I")


def header(size: int) -> bytes:
    """What stands before `size` bytes of data."""
    return _HEADER.pack(size)


class FrameReader:
    """Cuts what arrives into data, however it was cut on the way. Holds no data itself."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self.ended = False

    def feed(self, received: memoryview) -> Iterator[memoryview]:
        """The data in `received`, as views of it. Sets `ended` at the end frame; what follows that is ignored."""
        while received and not self.ended:
            if self._left:
                piece, received = received[: self._left], received[self._left :]
                self._left -= len(piece)
                yield piece
                continue
            missing = _HEADER.size - len(self._header)
            self._header += received[:missing]
            received = received[missing:]
            if len(self._header) == _HEADER.size:
                (self._left,) = _HEADER.unpack(self._header)
                self._header.clear()
                self.ended = self._left == 0
