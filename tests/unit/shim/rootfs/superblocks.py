"""Images that are a superblock and zeros: all that the shim reads of a snapshotter's image."""

import struct

from shim.rootfs.mounts import FsType

BLOCK = 4096


def erofs_image(blocks: int, *devices: tuple[int, int]) -> bytes:
    """`blocks` blocks of 4 KiB, with further devices: where each belongs and how long it is, in blocks."""
    image = bytearray(blocks * BLOCK)
    struct.pack_into("<I", image, 1024, 0xE0F5E1E2)
    image[1024 + 12] = 12
    struct.pack_into("<I", image, 1024 + 36, blocks)
    struct.pack_into("<HH", image, 1024 + 86, len(devices), 2048 // 128)
    for number, (at, length) in enumerate(devices):
        struct.pack_into("<64xII", image, 2048 + number * 128, length, at)
    return bytes(image)


def whole_image(fstype: FsType, size: int) -> bytes:
    """A file of `size` bytes that says that it is an ext4, XFS or Btrfs of that size."""
    image = bytearray(size)
    if fstype == "ext4":
        struct.pack_into("<I", image, 1024 + 4, size // BLOCK)
        struct.pack_into("<I", image, 1024 + 24, 2)
        struct.pack_into("<H", image, 1024 + 56, 0xEF53)
    elif fstype == "xfs":
        struct.pack_into(">4sIQ", image, 0, b"XFSB", BLOCK, size // BLOCK)
    else:
        struct.pack_into("<8s", image, 65536 + 64, b"_BHRfS_M")
        struct.pack_into("<Q", image, 65536 + 112, size)
    return bytes(image)
