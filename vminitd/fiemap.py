"""Where on its disk a file's data are: FS_IOC_FIEMAP (https://docs.kernel.org/filesystems/fiemap.html)."""

import fcntl
import struct

from api.inode import EXTENT
from vminitd.errors import KernelError

# linux/fiemap.h; the call is _IOWR('f', 11, struct fiemap).
_FS_IOC_FIEMAP = 0xC020660B
_LAST = 0x1
_DATA_INLINE = 0x200
_UNWRITTEN = 0x800
# The place is not known (yet), or what is there is not the data as they are read.
_NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100
# fm_start, fm_length, fm_flags, fm_mapped_extents, fm_extent_count, reserved
_HEADER = struct.Struct("=QQIIII")
# fe_logical, fe_physical, fe_length, 2 reserved, fe_flags, 3 reserved
_EXTENT = struct.Struct("=QQQ16xI12x")
# fm_mapped_extents, and of the first extent fe_logical and fe_flags.
_FIRST = struct.Struct("=I8xQ32xI")
_FIRST_AT = 20
_WHOLE = (1 << 64) - 1
# So many are asked for at first, which is enough for nearly every file, and of a longer list at a time.
FEW = 14
MANY = 1024


class Map:
    """Asks for one file after another. All that is in them must be on the disk already."""

    def __init__(self) -> None:
        # The kernel leaves the question as it is: nearly always it is the same.
        self._buffer = _question(0, FEW)

    def extents(self, descriptor: int, start: int, size: int) -> tuple[bytes, int, bool]:
        """Where the data from `start` on are, of an open file of `size` bytes: EXTENT, one after the other.

        Holes and unwritten extents are left out. Gives also the offset to go on from, 0 after the last one, and whether
        the data are inline, in no place of their own. Raises OSError, or KernelError where the place of some data
        cannot be told.
        """
        if not start:
            fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, self._buffer)
            count, offset, flags = _FIRST.unpack_from(self._buffer, _FIRST_AT)
            if count == 1 and flags == _LAST and offset < size:
                # The three numbers are in the kernel's answer as they are wanted.
                return bytes(self._buffer[_HEADER.size : _HEADER.size + EXTENT.size]), 0, False
            if count < FEW:
                return _places(self._buffer, count, size)
        while True:
            buffer = _question(start, MANY)
            fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
            found, start, inline = _places(buffer, _HEADER.unpack_from(buffer)[3], size)
            # All of them may be unwritten, as of a large file that is not used yet: nothing to tell, and not the end.
            if found or not start:
                return found, start, inline


def _question(start: int, most: int) -> bytearray:
    buffer = bytearray(_HEADER.size + most * _EXTENT.size)
    _HEADER.pack_into(buffer, 0, start, _WHOLE - start, 0, 0, most, 0)
    return buffer


def _places(answer: bytearray, count: int, size: int) -> tuple[bytes, int, bool]:
    """As Map.extents; `count` is how many the answer has."""
    found: list[bytes] = []
    inline, following = False, 0
    for number in range(count):
        offset, place, length, flags = _EXTENT.unpack_from(answer, _HEADER.size + number * _EXTENT.size)
        following = 0 if flags & _LAST else offset + length
        if offset >= size:
            return b"".join(found), 0, inline
        if flags & _DATA_INLINE:
            inline = True
        elif flags & _NO_PLACE:
            raise KernelError(f"the place on the disk of {length} bytes at {offset} cannot be told (flags {flags:#x})")
        elif not flags & _UNWRITTEN:
            found.append(EXTENT.pack(offset, place, length))
    return b"".join(found), following, inline
