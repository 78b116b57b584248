"""The machine's disks, found by their virtio-blk serial number and mounted.

Letters follow the order in which the kernel probed the disks, which no one promises. A disk that was hot-added just
before may not be there yet: the kernel tells when it is (`uevent`).
"""

import asyncio
import os
from typing import NamedTuple

from vminitd import deadlines
from vminitd.errors import MountError
from vminitd.layers import mount_options
from vminitd.libc import mount
from vminitd.uevent import Uevents


class Layer(NamedTuple):
    """A file system on a disk: `partition` counts from 1, 0 is the whole disk."""

    serial: str
    partition: int
    fstype: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        part = f" partition {self.partition}" if self.partition else ""
        return f"{self.fstype} on disk {self.serial!r}{part}"


def find(serial: str, partition: int, sys_block: str = "/sys/block") -> str | None:
    """The kernel's name of the disk, or of its partition, with this serial; None if it is not there (yet)."""
    for disk in os.listdir(sys_block):
        if not disk.startswith("vd") or _serial(f"{sys_block}/{disk}/serial") != serial:
            continue
        if not partition:
            return disk
        name = f"{disk}{partition}"
        return name if os.path.isdir(f"{sys_block}/{disk}/{name}") else None
    return None


def _serial(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip("\0\n ")
    except OSError:  # unplugged while we looked
        return ""


async def mount_layer(uevents: Uevents, layer: Layer, target: str) -> None:
    """Waits for the layer's disk and mounts it on `target`, a directory.

    Raises DeviceError if the disk does not appear, MountError if it cannot be mounted, RequestError for options
    that make no sense.
    """
    flags, data = mount_options(layer.fstype, layer.options)
    name = await uevents.until(lambda: find(layer.serial, layer.partition), str(layer), deadlines.DISK)
    try:
        await asyncio.to_thread(mount, f"/dev/{name}", target, layer.fstype, flags, data)
    except OSError as error:
        raise MountError(f"cannot mount {layer}: {error.strerror}") from error
