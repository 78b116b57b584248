"""Many files as one disk, without copying a byte: a VMDK descriptor with flat extents.

A VMDK's descriptor is a small text that says which files make up the disk, one after the
other; QEMU's vmdk driver reads it (block/vmdk.c, vmdk_parse_extents). The files stay as
they are. QEMU has no other driver that joins files, and device-mapper on the host would
leave loop devices behind when the shim is killed.

The driver wants "RW" even of an extent that is only read; that nothing is written is for
the block node to say (read-only).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shim.errors import HostError

SECTOR_BYTES: Final = 512
# QEMU reads no more of a descriptor (block/vmdk.c, vmdk_read_desc).
DESCRIPTOR_LIMIT: Final = (1 << 20) - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """A file that becomes one piece of the disk; `path` is as QEMU opens it, `name` as messages call it."""

    name: str
    path: str
    size_bytes: int


def descriptor(extents: Sequence[Extent]) -> bytes:
    """The descriptor of a disk made of `extents` in this order.

    Raises HostError without extents, for an extent that is empty or does not end on a sector, a path
    that cannot stand in a descriptor, and a descriptor that QEMU would cut off.
    """
    if not extents:
        raise HostError("a disk of no files cannot be made")
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        "CID=fffffffe",
        "parentCID=ffffffff",
        'createType="monolithicFlat"',
        *(_line(extent) for extent in extents),
        "",
    ]
    text = "\n".join(lines).encode()
    if len(text) > DESCRIPTOR_LIMIT:
        raise HostError(f"{len(extents)} files cannot be joined to one disk: the descriptor is too long")
    return text


def _line(extent: Extent) -> str:
    if extent.size_bytes <= 0 or extent.size_bytes % SECTOR_BYTES:
        raise HostError(
            f"{extent.name} of {extent.size_bytes} bytes: not a whole number of {SECTOR_BYTES}-byte sectors"
        )
    if any(character in extent.path for character in '"\r\n'):
        raise HostError(f"{extent.path!r} cannot stand in a VMDK descriptor")
    return f'RW {extent.size_bytes // SECTOR_BYTES} FLAT "{extent.path}" 0'
