"""A stream of bytes becomes pieces of a blob: compressed if wanted, with the digests of before and after.

gzip without name and time: equal trees give equal blobs.
"""

import hashlib
import zlib
from collections.abc import Iterator
from typing import Final

# What one message to containerd holds, at least, but for the last; messages may have 16 MiB (its default).
_PIECE: Final = 1 << 20
_GZIP: Final = 16 + zlib.MAX_WBITS
# The container stands still meanwhile: twice as fast as 6, for 6 % more bytes (docs/decisions/0030).
_LEVEL: Final = 3


class Packing:
    """`next` gives one piece after the other; the digests count once it has given b""."""

    def __init__(self, source: Iterator[bytes], *, compressed: bool) -> None:
        self._source = source
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP) if compressed else None
        self._before = hashlib.sha256()
        self._after = hashlib.sha256()
        self._ended = False
        self.size = 0

    def next(self) -> bytes:
        """The next piece; b"" at the end. Blocks while it reads and compresses."""
        piece = bytearray()
        while len(piece) < _PIECE and not self._ended:
            data = next(self._source, None)
            if data is None:
                self._ended = True
                piece += self._compressor.flush() if self._compressor else b""
            else:
                self._before.update(data)
                piece += self._compressor.compress(data) if self._compressor else data
        self._after.update(piece)
        self.size += len(piece)
        return bytes(piece)

    @property
    def diff_id(self) -> str:
        """The digest of what came in."""
        return f"sha256:{self._before.hexdigest()}"

    @property
    def digest(self) -> str:
        """The digest of what went out."""
        return f"sha256:{self._after.hexdigest()}"
