"""Where on its disk a file's data are: FS_IOC_FIEMAP (https://docs.kernel.org/filesystems/fiemap.html)."""

import fcntl
import struct

from vminitd.errors import KernelError

# linux/fiemap.h; the call is _IOWR('f', 11, struct fiemap).
_FS_IOC_FIEMAP = 0xC020660B
_SYNC = 0x1
_LAST = 0x1
_DATA_INLINE = 0x200
_UNWRITTEN = 0x800
# The place is not known (yet), or what is there is not the data as they are read.
_NO_PLACE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100
# fm_start, fm_length, fm_flags, fm_mapped_extents, fm_extent_count, reserved
_HEADER = struct.Struct("=QQIIII")
# fe_logical, fe_physical, fe_length, 2 reserved, fe_flags, 3 reserved
_EXTENT = struct.Struct("=QQQ16xI12x")
# Nearly every file has fewer: a short buffer is quicker to make. Of a longer list so many are asked for at a time.
FEW = 14
MANY = 1024


def extents(descriptor: int, start: int, end: int, places: list[int]) -> tuple[int, bool]:
    """Appends to `places` what is from `start` to `end` in the open file: offset in it, offset on the disk, length.

    Holes and unwritten extents are left out. Gives the offset to go on from, 0 after the last extent, and whether the
    data are inline, in no place of their own. Raises OSError, or KernelError where the place of some data cannot be
    told.
    """
    found, following, last = _ask(descriptor, start, end, FEW)
    if not last and len(found) == FEW:
        found, following, last = _ask(descriptor, start, end, MANY)
    inline = False
    for logical, physical, length, flags in found:
        if flags & _DATA_INLINE:
            inline = True
        elif flags & _NO_PLACE:
            raise KernelError(f"the place on the disk of {length} bytes at {logical} cannot be told (flags {flags:#x})")
        elif not flags & _UNWRITTEN:
            places += (logical, physical, length)
    return 0 if last or following >= end else following, inline


def _ask(descriptor: int, start: int, end: int, most: int) -> tuple[list[tuple[int, int, int, int]], int, bool]:
    buffer = bytearray(_HEADER.size + most * _EXTENT.size)
    _HEADER.pack_into(buffer, 0, start, end - start, _SYNC, 0, most, 0)
    fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, buffer)
    count: int = _HEADER.unpack_from(buffer)[3]
    at = _HEADER.size
    found = [_EXTENT.unpack_from(buffer, at + number * _EXTENT.size) for number in range(count)]
    if not found:
        return [], 0, True
    logical, _, length, flags = found[-1]
    return found, logical + length, bool(flags & _LAST)
