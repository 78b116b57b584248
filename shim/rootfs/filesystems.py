"""How long a file system says that it is, for the images that a snapshotter has made.

A file that was cut short is found out here, with one error that names it: the guest would
find out only by an I/O error in the middle of a program. Two numbers are read of a
superblock, none of which is trusted to be right: the writable ones were written by guests.

    erofs   Linux, fs/erofs/erofs_fs.h, struct erofs_super_block, at 1024
    ext4    Linux, fs/ext4/ext4.h, struct ext4_super_block, at 1024
    xfs     Linux, fs/xfs/libxfs/xfs_format.h, struct xfs_dsb, at 0
    btrfs   Linux, include/uapi/linux/btrfs_tree.h, struct btrfs_super_block, at 65536
"""

import os
import struct
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

from shim.errors import HostError
from shim.rootfs.mounts import FsType


class _Kind(NamedTuple):
    """Where the superblock is, how long what is read of it is, where its magic is, and what makes a length of it."""

    at: int
    length: int
    magic_at: int
    magic: bytes
    size: Callable[[bytes], int]


def _little(block: bytes, at: int, length: int) -> int:
    return int.from_bytes(block[at : at + length], "little")


def _erofs_size(block: bytes) -> int:
    has_48_bits = _little(block, 80, 4) & 0x80  # erofs-utils 1.9
    blocks = _little(block, 36, 4) | (_little(block, 14, 2) << 32 if has_48_bits else 0)
    return blocks << (block[12] & 31)


def _ext4_size(block: bytes) -> int:
    has_64_bits = _little(block, 96, 4) & 0x80
    blocks = _little(block, 4, 4) | (_little(block, 0x150, 4) << 32 if has_64_bits else 0)
    return blocks << (10 + (_little(block, 24, 4) & 31))


def _xfs_size(block: bytes) -> int:
    block_bytes, blocks = struct.unpack_from(">IQ", block, 4)
    return int(block_bytes * blocks)


_KINDS: Final[dict[FsType, _Kind]] = {
    "erofs": _Kind(1024, 128, 0, b"\xe2\xe1\xf5\xe0", _erofs_size),
    "ext4": _Kind(1024, 1024, 56, b"\x53\xef", _ext4_size),
    "xfs": _Kind(0, 512, 0, b"XFSB", _xfs_size),
    "btrfs": _Kind(65536, 4096, 64, b"_BHRfS_M", lambda block: _little(block, 112, 8)),
}
# EROFS: how many further devices there are, where their table is (in units of an entry), and what an entry is.
_DEVICES_AT: Final = 86
_TABLE_AT: Final = 88
_ENTRY_BYTES: Final = 128
# What to do about an image that a snapshotter has lost.
HINT: Final = "remove the snapshot, and the image that it is of"


def check(fd: int, path: Path, fstype: FsType, size: int) -> None:
    """Raise HostError for an open file, or block device, of `size` bytes that does not hold a whole `fstype`."""
    kind = _KINDS[fstype]
    block = _read(fd, path, kind.length, kind.at)
    if len(block) < kind.length or not block.startswith(kind.magic, kind.magic_at):
        raise HostError(f"{path}: holds no {fstype} file system", hint=HINT)
    wanted = kind.size(block)
    if wanted > size:
        raise HostError(
            f"{path}: cut short, its {fstype} file system is of {wanted} bytes and the file of {size}", hint=HINT
        )


class Device(NamedTuple):
    """A further device of an EROFS: where on the joined disk it belongs, and how much of it is used, in bytes."""

    at: int
    size: int


def further_devices(fd: int, path: Path) -> list[Device]:
    """What an EROFS needs beside itself: images that are joined to it, in this order, or devices of their own."""
    kind = _KINDS["erofs"]
    block = _read(fd, path, kind.length, kind.at)
    count, table = _little(block, _DEVICES_AT, 2), _little(block, _TABLE_AT, 2)
    entries = _read(fd, path, count * _ENTRY_BYTES, table * _ENTRY_BYTES)
    shift = block[12] & 31
    return [
        Device(
            (_little(entries, at + 68, 4) | _little(entries, at + 76, 2) << 32) << shift,
            (_little(entries, at + 64, 4) | _little(entries, at + 72, 4) << 32) << shift,
        )
        for at in range(0, len(entries), _ENTRY_BYTES)
    ]


def check_joined(fd: int, path: Path, sizes: Sequence[int]) -> None:
    """Raise HostError for an EROFS whose further devices are not files of these `sizes`, its own first, joined.

    In one file alone they lie behind its own blocks (the erofs differ with `enable_tar_index`: the layer's tar).
    """
    ends = list(accumulate(sizes))
    devices = further_devices(fd, path)
    starts = [device.at for device in devices]
    limits = ends[1:] if len(sizes) > 1 else ends * len(devices)
    if (len(sizes) > 1 and starts != ends[:-1]) or any(
        device.at + device.size > end for device, end in zip(devices, limits, strict=True)
    ):
        raise HostError(
            f"{path}: an index of {len(devices)} other images, and the {len(sizes) - 1} that it is mounted with are "
            "not those, or not as long as they were",
            hint="remove it; the erofs snapshotter does without",
        )


def _read(fd: int, path: Path, length: int, at: int) -> bytes:
    try:
        return os.pread(fd, length, at)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error
