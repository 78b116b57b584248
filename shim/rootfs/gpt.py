"""A GUID partition table around images that are joined to one disk.

Slots for disks are few and image layers may be a hundred, so many images become one
disk: `head`, the images one after the other, `tail`. Nothing is copied; each image is a
partition. The kernel would take a disk whose second table (`tail`) is missing, with a
warning (block/partitions/efi.c, find_valid_gpt); with it the disk is whole for every tool.
Layout: UEFI specification 2.10, chapter 5.3.
"""

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECTOR: Final = 512
_ENTRIES: Final = 128
_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_HEADER_BYTES: Final = 92
# Table and header need 34 sectors; 40 keep the first image on a multiple of 4 KiB.
_HEAD_SECTORS: Final = 40
_TABLE_SECTORS: Final = _ENTRIES * _ENTRY.size // SECTOR
# 0FC63DAF-8483-4772-8E79-3D69D8477DE4, Linux file system data, in the byte order of the table.
_LINUX_DATA: Final = bytes.fromhex("af3dc60f 8384 7247 8e79 3d69d8477de4")


@dataclass(frozen=True, slots=True)
class Table:
    """What goes before and behind the images, in bytes: both multiples of 4 KiB."""

    head: bytes
    tail: bytes


def table(sizes: Sequence[int]) -> Table:
    """The tables of a disk with one partition for each of `sizes`, in bytes.

    A size must be a multiple of 512; partitions stay on multiples of 4 KiB as long as
    the sizes are such. Raises ValueError for none, more than 128, or another size.
    Equal sizes give equal tables.
    """
    if not 1 <= len(sizes) <= _ENTRIES:
        raise ValueError(f"{len(sizes)} partitions: a table has 1 to {_ENTRIES}")
    if any(size <= 0 or size % SECTOR for size in sizes):
        raise ValueError(f"partitions of {list(sizes)} bytes: each must be a multiple of {SECTOR}")
    end = _HEAD_SECTORS + sum(sizes) // SECTOR
    last = end + _HEAD_SECTORS - 1
    name = hashlib.sha256(repr(list(sizes)).encode()).digest()
    entries = _entries(sizes, name)

    def header(own: int, other: int, entries_at: int) -> bytes:
        return _header(own, other, entries_at, end - 1, name[:16], zlib.crc32(entries))

    head = _protective_mbr(last) + header(1, last, 2).ljust(SECTOR, b"\0") + entries
    tail = entries + header(last, 1, last - _TABLE_SECTORS).ljust(SECTOR, b"\0")
    return Table(head.ljust(_HEAD_SECTORS * SECTOR, b"\0"), tail.rjust(_HEAD_SECTORS * SECTOR, b"\0"))


def start(head: bytes, partition: int) -> int:
    """Where a partition, counted from 1, of a disk that begins with `head` is, in bytes; -1 if it has none such."""
    if not 1 <= partition <= _ENTRIES:
        return -1
    kind, _, first, *_ = _ENTRY.unpack_from(head, 2 * SECTOR + (partition - 1) * _ENTRY.size)
    return int(first) * SECTOR if kind == _LINUX_DATA else -1


def _entries(sizes: Sequence[int], name: bytes) -> bytes:
    done = bytearray()
    at = _HEAD_SECTORS
    for number, size in enumerate(sizes, start=1):
        last = at + size // SECTOR - 1
        own = hashlib.sha256(name + bytes([number])).digest()[:16]
        done += _ENTRY.pack(_LINUX_DATA, own, at, last, 0, f"layer{number}".encode("utf-16-le"))
        at = last + 1
    return bytes(done).ljust(_ENTRIES * _ENTRY.size, b"\0")


def _header(own: int, other: int, entries_at: int, last_usable: int, name: bytes, entries_crc: int) -> bytes:
    """The header in sector `own`; its checksum is made over itself with the checksum as zero."""

    def pack(crc: int) -> bytes:
        return _HEADER.pack(
            b"EFI PART",
            0x00010000,
            _HEADER_BYTES,
            crc,
            0,
            own,
            other,
            _HEAD_SECTORS,
            last_usable,
            name,
            entries_at,
            _ENTRIES,
            _ENTRY.size,
            entries_crc,
        )

    return pack(zlib.crc32(pack(0)))


def _protective_mbr(last: int) -> bytes:
    """The first sector: one partition of type 0xEE over the whole disk, so that old tools keep off."""
    sectors = min(last, 0xFFFFFFFF)
    partition = struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", 0xEE, b"\xff\xff\xff", 1, sectors)
    return (bytes(446) + partition).ljust(510, b"\0") + b"\x55\xaa"
