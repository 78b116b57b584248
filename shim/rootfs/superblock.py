"""The first block of an image of the cache: what it says of the whole, without reading the whole.

Linux, fs/erofs/erofs_fs.h: the superblock is at 1024; it counts the blocks of the image. An image of the cache names
itself in there: its UUID comes from the digest of all of it and from the first block, so a first block that was
damaged, or is another image's, cannot be mistaken for it. The kernel's own checksum of the superblock is not used: it
would be looked at in the guest only, where it is too late to make the image anew. Images that others have made are
looked at in filesystems.py.
"""

import hashlib
import os
import struct
from typing import Final

_MAGIC: Final = 0xE0F5E1E2
_AT: Final = 1024
_BLOCKS_AT: Final = _AT + 36
_UUID_AT: Final = _AT + 48
_UUID_BYTES: Final = 16
# Images are made with blocks of the page's size, and are never smaller than one.
BLOCK: Final = 4096


def fault(fd: int, size: int, digest: str) -> str:
    """What keeps the open file of `size` bytes from being the image of that digest; empty if nothing does.

    As far as can be told from its size and its first block. Raises OSError.
    """
    head = os.pread(fd, BLOCK, 0)
    if len(head) < BLOCK:
        return f"is cut short at {size} bytes"
    if struct.unpack_from("<I", head, _AT) != (_MAGIC,):
        return "is no EROFS image: its superblock is damaged or missing"
    (blocks,) = struct.unpack_from("<I", head, _BLOCKS_AT)
    if size != blocks * BLOCK:
        return f"{'is cut short' if size < blocks * BLOCK else 'is too long'}: has {size} bytes of {blocks * BLOCK}"
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
