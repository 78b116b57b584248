"""Disks of the host, or their images, as disks of a container's machine.

A file system that two kernels write to is lost, so a source is held as long as the machine may have it: by flock(2),
which others honour (https://systemd.io/BLOCK_DEVICE_LOCKING), alone for one that is written, shared
for one that is only read; a block device that is written by O_EXCL, too, which fails for one that the host has mounted
and keeps the host from mounting it (open(2)); and an image that one of the host's loop devices has is refused. The
machine's QEMU locks a file that it writes as well, so that even one that outlives its shim for a moment is alone.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api import guest_pb2
from shim import deadlines
from shim.errors import HostError, SpecError
from shim.mounts import BlockVolume
from shim.rootfs import flock
from shim.rootfs.plan import Disk, Extent

_SECTOR: Final = 512
_RETRY_S: Final = 0.02
_ALONE_S: Final = 0.5
_LOOPS: Final = Path("/sys/block")


@dataclass(slots=True)
class BlockVolumes:
    """Those of one container, open. Keep this until the machine that has the disks has ended.

    `persistent` says that one of them is written, so the guest must unmount it before the end.
    """

    disks: tuple[Disk, ...]
    persistent: bool
    _volumes: tuple[BlockVolume, ...]
    _open: contextlib.ExitStack

    def messages(self, seat: Callable[[guest_pb2.Layer], None]) -> list[guest_pb2.BlockVolume]:
        """For vminitd; `seat` says where the guest finds a disk (Sandbox.seat)."""
        found = []
        for volume, disk in zip(self._volumes, self.disks, strict=True):
            layer = guest_pb2.Layer(serial=disk.serial, fstype=volume.fstype, options=volume.options)
            seat(layer)
            found.append(guest_pb2.BlockVolume(name=volume.name, disk=layer))
        return found

    def close(self) -> None:
        """Let go of the sources. A second call does nothing."""
        self._open.close()


async def open_all(volumes: Sequence[BlockVolume], key: str) -> BlockVolumes:
    """Open the sources for the machine named `key`.

    Raises HostError for one that cannot be opened or is in use, SpecError for one that cannot be a disk; then none is
    open.
    """
    if not volumes:
        return BlockVolumes((), False, (), contextlib.ExitStack())
    return await asyncio.to_thread(_open_all, volumes, key)


def _open_all(volumes: Sequence[BlockVolume], key: str) -> BlockVolumes:
    stack = contextlib.ExitStack()
    name = hashlib.sha256(key.encode()).hexdigest()[:12]
    try:
        disks = tuple(_disk(volume, f"v{volume.name}-{name}", stack) for volume in volumes)
    except BaseException:
        stack.close()
        raise
    return BlockVolumes(disks, any(not volume.read_only for volume in volumes), tuple(volumes), stack)


def _disk(volume: BlockVolume, serial: str, stack: contextlib.ExitStack) -> Disk:
    what = f"cannot mount {volume.source} at {volume.destination}"
    fd = _open(volume, what)
    stack.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise SpecError(f"{what}: it is no block device and no file any more")
    lock = flock.try_shared if volume.read_only else flock.try_exclusive
    # systemd-udevd locks a device to look at it, also whenever somebody who has written to it has closed it.
    if not _soon(lambda: lock(fd), deadlines.NEW_DEVICE_S if stat.S_ISBLK(status.st_mode) else 0.0):
        raise HostError(
            f"{what}: the disk is in use by another machine, or locked by a program of the host",
            hint="end what uses it, or mount it read-only everywhere",
        )
    loop = _loop_device(status, written=not volume.read_only)
    if loop:
        raise HostError(f"{what}: {loop} of the host has it", hint=f"unmount {loop}, then losetup -d {loop}")
    size = os.lseek(fd, 0, os.SEEK_END)  # of a block device too
    if size == 0 or size % _SECTOR:
        raise SpecError(
            f"{what}: it has {size} bytes, which is no whole number of {_SECTOR}-byte sectors",
            hint="make the file's size a multiple, as with truncate -s %4096",
        )
    return Disk(serial, (Extent(fd, volume.source, size),), read_only=volume.read_only, partitioned=False)


def _open(volume: BlockVolume, what: str) -> int:
    """O_EXCL has a meaning without O_CREAT for block devices alone; what is only read is not held by it."""
    flags = (os.O_RDONLY if volume.read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        if stat.S_ISBLK(os.stat(volume.source).st_mode):
            exclusive = _open_alone(volume.source, flags)
            if not volume.read_only:
                return exclusive
            os.close(exclusive)
        return os.open(volume.source, flags)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise HostError(
                f"{what}: the host has mounted the device, or uses it otherwise", hint="unmount it on the host first"
            ) from error
        if error.errno == errno.EROFS and not volume.read_only:
            raise HostError(f"{what}: {error.strerror}", hint="mount it with the option ro") from error
        raise HostError(f"{what}: {error.strerror}") from error


def _open_alone(source: Path, flags: int) -> int:
    """Raises OSError. Another machine that only reads the device has it so for a moment, as we may."""
    end = time.monotonic() + _ALONE_S
    while True:
        try:
            return os.open(source, flags | os.O_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > end:
                raise
        time.sleep(_RETRY_S)


def _soon(attempt: Callable[[], bool], patience_s: float) -> bool:
    """Whether it succeeds within that time. Blocks."""
    end = time.monotonic() + patience_s
    while not attempt():
        if time.monotonic() > end:
            return False
        time.sleep(_RETRY_S)
    return True


def _loop_device(status: os.stat_result, *, written: bool) -> str:
    """The loop device of the host that has this very file and could do harm: one of both writes. Empty: none."""
    if not stat.S_ISREG(status.st_mode):
        return ""
    for loop in _LOOPS.glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it has just been detached, or its file been removed
            device = loop.parents[1]
            same = os.path.samestat(os.stat(loop.read_text().rstrip("\n")), status)
            if same and (written or (device / "ro").read_text().strip() == "0"):
                return f"/dev/{device.name}"
    return ""
