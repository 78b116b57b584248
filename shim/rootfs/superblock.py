"""The first block of an EROFS image: what it says of the whole, without reading the whole.

Linux, fs/erofs/erofs_fs.h: the superblock is at 1024; it counts the blocks of the image. An image of the cache names
itself in there: its UUID comes from the digest of all of it and from the first block, so a first block that was
damaged, or is another image's, cannot be mistaken for it. The kernel's own checksum of the superblock is not used: it
would be looked at in the guest only, where it is too late to make the image anew.
"""

import hashlib
import os
import struct
from typing import Final

_MAGIC: Final = 0xE0F5E1E2
_AT: Final = 1024
_UUID_AT: Final = _AT + 48
_UUID_BYTES: Final = 16
# Images are made with blocks of the page's size, and are never smaller than one.
BLOCK: Final = 4096
# feature_incompat: the number of blocks has 16 bits more, in the place of the root's number (erofs-utils 1.9).
_48BIT: Final = 0x80


def fault(fd: int, size: int) -> str:
    """What keeps the open file of `size` bytes from being an EROFS image with all its blocks; empty if nothing does.

    A file may go on behind the image. Raises OSError.
    """
    return _fault(os.pread(fd, BLOCK, 0), size)


def own_fault(fd: int, size: int, digest: str) -> str:
    """The same for an image of the cache, whose digest is known: it ends with its last block, too. Raises OSError."""
    head = os.pread(fd, BLOCK, 0)
    found = _fault(head, size)
    if found:
        return found
    if size != _bytes(head):
        return f"has {size} bytes and should have {_bytes(head)}"
    if head[_UUID_AT:][:_UUID_BYTES] != uuid(head, digest):
        return "its first block is damaged, or another image's"
    return ""


def uuid(head: bytes, digest: str) -> bytes:
    """The UUID of an image with that first block and that digest, whatever UUID is in there."""
    return hashlib.sha256(digest.encode() + without_uuid(head)).digest()[:_UUID_BYTES]


def without_uuid(head: bytes) -> bytes:
    """The first block as mkfs.erofs made it."""
    return head[:_UUID_AT] + bytes(_UUID_BYTES) + head[_UUID_AT + _UUID_BYTES :]


def write_uuid(fd: int, value: bytes) -> None:
    """Give an image its UUID."""
    os.pwrite(fd, value, _UUID_AT)


def _fault(head: bytes, size: int) -> str:
    if len(head) < _AT + 128:
        return f"is cut short at {size} bytes"
    if struct.unpack_from("<I", head, _AT) != (_MAGIC,):
        return "is no EROFS image: its superblock is damaged or missing"
    if size < _bytes(head):
        return f"is cut short: has {size} bytes of {_bytes(head)}"
    return ""


def _bytes(head: bytes) -> int:
    """How large the superblock says that the image is."""
    (bits,) = struct.unpack_from("<B", head, _AT + 12)
    (high,) = struct.unpack_from("<H", head, _AT + 14)
    (blocks,) = struct.unpack_from("<I", head, _AT + 36)
    (features,) = struct.unpack_from("<I", head, _AT + 80)
    if features & _48BIT:
        blocks += high << 32
    return int(blocks) << int(bits)
