"""The numbers of an inode as Changes.List has them (changes.proto), packed: little-endian, without gaps.

    FACTS    depth, mode, uid, gid     32 bits each
             rdev, size                64 bits each
             mtime_ns, ctime_ns        64 bits each, with a sign: nanoseconds since 1970
             inode                     64 bits
             links                     32 bits
    EXTENT   offset in the file, offset on the disk, length    64 bits each, in bytes

`depth` is how many directories the entry is in: it is in the last one before it whose depth is less by one. `mode` is
type and permissions, and `rdev` a device's number, as in stat(2); a whiteout is the character device 0. `size` is a
regular file's, and 0 otherwise. Entries that are no directories, with the same `inode`, are names of one file, which
has as many as `links` says.
"""

import struct
from typing import Final

FACTS: Final = struct.Struct("<IIIIQQqqQI")
EXTENT: Final = struct.Struct("<QQQ")
