"""The drives that every machine has from its start, and which of them have a disk in them.

QEMU lets a drive's medium be changed while it is plugged in, but tells the guest of a new
size only when the medium that is in it is resized (block_resize), and a read-only one
cannot be. So a drive first gets a blank, a file in memory that can have any size without
taking any, which is given the disk's size; then the disk itself. The guest's driver is
told once, and finds a disk of that size (drivers/block/virtio_blk.c, virtblk_config_changed).
"""

from shim.vm.machine import LAYER_DRIVES, WRITABLE_DRIVES


class Drives:
    """Gives out the drives of one machine, lowest first. Which kind a disk needs depends on whether it is read-only."""

    def __init__(self) -> None:
        self._free: dict[bool, list[str]] = {True: list(LAYER_DRIVES), False: list(WRITABLE_DRIVES)}

    def take(self, *, read_only: bool) -> str | None:
        """A free drive's id, which is its serial number too; None when all of that kind have a disk."""
        free = self._free[read_only]
        return free.pop(0) if free else None

    def free(self, drive: str) -> None:
        """The drive has no disk any more."""
        read_only = drive in LAYER_DRIVES
        self._free[read_only] = sorted([*self._free[read_only], drive])
