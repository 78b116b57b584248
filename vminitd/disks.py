"""The machine's disks, found by their virtio-blk serial number and mounted.

Letters follow the order in which the kernel probed the disks, which no one promises. A disk that was hot-added just
before may not be there yet, and a drive that was empty may not have its disk yet: the kernel tells (`uevent`).
"""

import asyncio
import fcntl
import os
from collections.abc import Sequence
from typing import NamedTuple

from vminitd import deadlines
from vminitd.errors import MountError
from vminitd.layers import mount_options
from vminitd.libc import mount
from vminitd.uevent import Uevents

_SECTOR = 512
_BLKRRPART = 0x125F  # linux/fs.h


class Layer(NamedTuple):
    """A file system on a disk: `partition` counts from 1, 0 is the whole disk.

    `disk_bytes` is the size of a disk that is put into a drive, by which it is known to be there; 0 for any other.
    """

    serial: str
    partition: int
    fstype: str
    options: tuple[str, ...]
    disk_bytes: int = 0

    def __str__(self) -> str:
        part = f" partition {self.partition}" if self.partition else ""
        return f"{self.fstype} on disk {self.serial!r}{part}"


def find(serial: str, size: int = 0, sys_block: str = "/sys/block") -> str | None:
    """The kernel's name of the disk with this serial, and of this size in bytes if one is given; None before that."""
    for disk in os.listdir(sys_block):
        if disk.startswith("vd") and _read(f"{sys_block}/{disk}/serial") == serial:
            return disk if not size or _read(f"{sys_block}/{disk}/size") == str(size // _SECTOR) else None
    return None


def find_partition(disk: str, partition: int, sys_block: str = "/sys/block") -> str | None:
    """The kernel's name of the disk's partition, or of the disk itself for 0; None if it is not there (yet)."""
    name = f"{disk}{partition}" if partition else disk
    return name if not partition or os.path.isdir(f"{sys_block}/{disk}/{name}") else None


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip("\0\n ")
    except OSError:  # unplugged while we looked
        return ""


def read_partitions(disk: str) -> None:
    """Has the kernel read the partition table anew: that of a disk which came into a drive was not there to be read.

    Raises MountError.
    """
    fd = os.open(f"/dev/{disk}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _BLKRRPART)
    except OSError as error:
        raise MountError(f"cannot read the partition table of {disk}: {error.strerror}") from error
    finally:
        os.close(fd)


async def devices_of(uevents: Uevents, layers: Sequence[Layer]) -> list[str]:
    """The path of the device that each layer is on, in order, once all are there. Raises DeviceError, MountError.

    Each disk is looked for once, however many of the layers are its partitions: a look is a hundred times what it is
    on the host, where the machine is emulated.
    """
    last: dict[str, Layer] = {}
    for layer in layers:
        if layer.serial not in last or layer.partition > last[layer.serial].partition:
            last[layer.serial] = layer
    disks = {serial: await _disk_of(uevents, layer) for serial, layer in last.items()}
    return [f"/dev/{disks[layer.serial]}{layer.partition or ''}" for layer in layers]


async def _disk_of(uevents: Uevents, last: Layer) -> str:
    """The kernel's name of a disk, once it has its partitions up to that of `last`: the kernel adds them in order."""
    disk = await uevents.until(lambda: find(last.serial, last.disk_bytes), str(last), deadlines.DISK)
    if last.partition and last.disk_bytes:
        await asyncio.to_thread(read_partitions, disk)
    await uevents.until(lambda: find_partition(disk, last.partition), str(last), deadlines.DISK)
    return disk


def mount_layer(layer: Layer, device: str, target: str) -> None:
    """Mounts the layer's device on `target`, a directory. Blocks; call it in a thread.

    Raises MountError if it cannot be mounted, RequestError for options that make no sense.
    """
    flags, data = mount_options(layer.fstype, layer.options)
    try:
        mount(device, target, layer.fstype, flags, data)
    except OSError as error:
        raise MountError(f"cannot mount {layer}: {error.strerror}") from error
