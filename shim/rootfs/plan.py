"""The disks of a container's root file system, and what the guest mounts from them.

Values only. `Disk` is what the virtual machine attaches; `GuestRootfs` is what vminitd
mounts from it, and maps one to one to the messages of api/guest.proto. Both sides find
a disk by its serial number, which virtio-blk cuts off at 20 bytes
(Linux, VIRTIO_BLK_ID_BYTES), so it must never be longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api import guest_pb2
from shim.rootfs.mounts import FsType
from shim.rootfs.overlay import Owners

SERIAL_BYTES: Final = 20
# Up to this many layers each get a disk of their own; more share one, because slots for disks are few.
SEPARATE_DISKS: Final = 4
# As many entries as a usual GUID partition table has.
PARTITIONS: Final = 128


@dataclass(frozen=True, slots=True)
class Extent:
    """A whole open file as a part of a disk.

    `fd` is open for reading, and for writing too unless the disk is read-only; the
    PreparedRootfs owns it. `path` is for messages. `size` is in bytes, a multiple of 512.
    """

    fd: int
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk: the extents one after the other, nothing between them.

    `partitioned` says that the first and the last extent hold a GUID partition table.
    """

    serial: str
    extents: tuple[Extent, ...]
    read_only: bool
    partitioned: bool

    def __post_init__(self) -> None:
        if not 0 < len(self.serial.encode()) <= SERIAL_BYTES:
            raise ValueError(f"serial number {self.serial!r}: must have 1 to {SERIAL_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class GuestLayer:
    """A file system that the guest mounts: on the whole disk, or on its partition counted from 1."""

    serial: str
    partition: int
    fstype: FsType
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GuestRootfs:
    """The container's root in the guest; see the message Rootfs in api/guest.proto.

    The lowest `mapped` layers are seen with other `owners`.
    """

    lower: tuple[GuestLayer, ...]
    writable: GuestLayer | None
    whole: bool = False
    mapped: int = 0
    owners: Owners | None = None


def arrange(count: int) -> tuple[range, ...]:
    """Which of `count` layers share a disk: runs of their indices, in order.

    A run of one is a disk without partitions, except beside longer runs.
    """
    if count <= SEPARATE_DISKS:
        return tuple(range(index, index + 1) for index in range(count))
    return tuple(range(start, min(start + PARTITIONS, count)) for start in range(0, count, PARTITIONS))


def to_message(rootfs: GuestRootfs) -> guest_pb2.Rootfs:
    """The same as a message for vminitd."""
    return guest_pb2.Rootfs(
        lower=_layers(rootfs.lower),
        writable=_layers((rootfs.writable,))[0] if rootfs.writable else None,
        whole=rootfs.whole,
        mapped=rootfs.mapped if rootfs.owners else 0,
        uid_map=rootfs.owners.uid_map if rootfs.owners else "",
        gid_map=rootfs.owners.gid_map if rootfs.owners else "",
    )


def _layers(layers: Sequence[GuestLayer]) -> list[guest_pb2.Layer]:
    return [
        guest_pb2.Layer(
            serial=layer.serial,
            partition=layer.partition,
            fstype=layer.fstype,
            options=layer.options,
        )
        for layer in layers
    ]
