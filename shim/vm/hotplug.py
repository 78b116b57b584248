"""Puts disks into a machine's drives, plugs devices into it over QMP, and takes them out again.

QEMU opens nothing itself: each file is opened here, as root, and handed over (`add-fd`
for what a block node opens by name, `getfd` for what a command takes by name). What was
set up before a step that failed is taken back, so a machine never holds half a device.

Devices go in while the machine is paused, before its first instruction, or while it
runs. They come out only with the guest's help, so only while it runs.
"""

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from shim.errors import HostError, MachineError, NotFoundError
from shim.vm import capacity, devices
from shim.vm.devices import Disk, JoinedDisk, Nic
from shim.vm.drives import Drives
from shim.vm.machine import SLOTS, empty_medium
from shim.vm.qmp import Event, Qmp
from shim.vm.slots import Slots
from shim.vm.vmdk import Extent, descriptor
from shim.vm.vsock import KernelVsockDevice, VsockDevice


class Seat(NamedTuple):
    """Where the guest finds a disk: by this serial number, and once it is of this size in bytes; 0: whatever it is."""

    serial: str
    size: int


class Hotplug:
    """The devices of one machine beyond those it started with."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        self._slots = Slots(SLOTS)
        self._drives = Drives()
        self._has_blank = False
        self._next_fdset = 1
        # By device id: what takes back its parts, once the device itself is out.
        self._parts: dict[str, AsyncExitStack] = {}
        # Of ports that are out, and still to be removed.
        self._chardevs: list[str] = []
        # By disk: the drive that it is in.
        self._seated: dict[str, str] = {}

    @property
    def taken(self) -> dict[str, int]:
        """Which slot each device is in."""
        return self._slots.taken

    async def add_disk(self, disk: Disk) -> Seat:
        """Add one file as a disk. Raises HostError for the file, ResourceError for slots, MachineError for QEMU."""
        devices.check_serial(disk.serial)
        async with AsyncExitStack() as undo:
            with _opened(disk.path, read_only=disk.read_only) as fd:
                size = os.lseek(fd, 0, os.SEEK_END)
                block_device = stat.S_ISBLK(os.fstat(fd).st_mode)
                fdset = await self._add_fd(undo, fd)
            node = devices.raw_node(disk.serial, fdset, read_only=disk.read_only, block_device=block_device)
            await self._add_node(undo, node)
            seat = await self._seat(undo, disk.serial, size, read_only=disk.read_only)
            self._parts[disk.serial] = undo.pop_all()
        return seat

    async def add_joined_disk(self, disk: JoinedDisk) -> Seat:
        """Add several files as one disk. Raises as `add_disk`."""
        devices.check_serial(disk.serial)
        async with AsyncExitStack() as undo:
            extents = await self._add_extents(undo, disk.extents)
            (text,) = await self._add_extents(undo, (descriptor(extents),))
            await self._add_node(undo, devices.joined_node(disk.serial, text.path))
            size = sum(extent.size_bytes for extent in extents)
            seat = await self._seat(undo, disk.serial, size, read_only=True)
            self._parts[disk.serial] = undo.pop_all()
        return seat

    async def _seat(self, undo: AsyncExitStack, serial: str, size: int, *, read_only: bool) -> Seat:
        """Put the disk whose node is there into a free drive, or plug in one of its own."""
        drive = self._drives.take(read_only=read_only)
        if drive is None:
            slot = self._take_slot(undo, serial)
            await self._qmp.execute("device_add", devices.disk_device(serial, slot, read_only=read_only))
            return Seat(serial, 0)
        undo.callback(self._drives.free, drive)
        empty = devices.medium(drive, empty_medium(read_only=read_only))
        undo.push_async_callback(self._take_back, "qom-set", empty)
        await self._set_size(drive, size)
        await self._qmp.execute("qom-set", devices.medium(drive, devices.node_name(serial)))
        self._seated[serial] = drive
        undo.callback(self._seated.pop, serial)
        return Seat(drive, size)

    async def _set_size(self, drive: str, size: int) -> None:
        """Put the blank into a drive, of `size` bytes: the guest is told (drives.py)."""
        if not self._has_blank:
            with _blank() as fd:
                await self._qmp.execute("blockdev-add", devices.blank_node(await self._add_fd(None, fd)))
            self._has_blank = True
        await self._qmp.execute("qom-set", devices.medium(drive, devices.BLANK))
        await self._qmp.execute("block_resize", devices.resize(devices.BLANK, size))

    async def add_nic(self, nic: Nic) -> None:
        """Plug in a network interface on an open TAP. Raises ResourceError for slots, MachineError for QEMU."""
        names = (*devices.tap_names(nic), *devices.vhost_names(nic))
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, nic.name)
            backend = devices.netdev(nic)
            async with AsyncExitStack() as unused:
                for name, fd in zip(names, (*nic.tap_fds, *nic.vhost_fds), strict=True):
                    await self._qmp.get_fd(name, fd)
                    unused.push_async_callback(self._take_back, "closefd", {"fdname": name})
                await self._qmp.execute("netdev_add", backend)
                unused.pop_all()
            undo.push_async_callback(self._take_back, "netdev_del", {"id": backend["id"]})
            await self._qmp.execute("device_add", devices.nic_device(nic, slot))
            self._parts[nic.name] = undo.pop_all()

    async def resize_memory(self, requested_mib: int) -> None:
        """Ask the guest to grow or shrink to `requested_mib`; MEMORY_DEVICE_SIZE_CHANGE tells what it did."""
        await self._qmp.execute("qom-set", devices.memory_request(requested_mib))

    async def settle_memory(self, requested_mib: int, stall_s: float, limit_s: float) -> int:
        """`resize_memory`, and wait until the guest has done it (capacity.py). Raises GuestError where it does not."""
        return await capacity.settle(self._qmp, requested_mib, stall_s=stall_s, limit_s=limit_s)

    async def add_vsock(self, vsock: VsockDevice) -> None:
        """Plug in vsock; QEMU has its own copy of the descriptor afterwards."""
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, devices.VSOCK_DEVICE)
            if isinstance(vsock, KernelVsockDevice):
                await self._qmp.get_fd(devices.VSOCK_FD, vsock.vhost_fd)
            else:
                await self._qmp.get_fd(devices.VSOCK_FD, vsock.vhost_user_fd)
                await self._qmp.execute("chardev-add", devices.vsock_chardev())
                undo.push_async_callback(self._take_back, "chardev-remove", {"id": devices.VSOCK_CHARDEV})
            await self._qmp.execute("device_add", devices.vsock_device(vsock, slot))
            self._parts[devices.VSOCK_DEVICE] = undo.pop_all()

    async def add_share(self, connection: socket.socket) -> None:
        """Plug in virtiofs on a socket that is connected to virtiofsd; it is closed here, and QEMU has it alone."""
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, devices.SHARE)
            await self._qmp.get_fd(devices.SHARE_CHARDEV, connection.fileno())
            connection.close()
            await self._qmp.execute("chardev-add", devices.share_chardev())
            undo.push_async_callback(self._take_back, "chardev-remove", {"id": devices.SHARE_CHARDEV})
            await self._qmp.execute("device_add", devices.share_device(slot))
            self._parts[devices.SHARE] = undo.pop_all()

    async def add_port(self, number: int, device: str, fd: int) -> None:
        """Plug in a virtio-serial port, by the id `device`, on a connected socket, which stays the caller's."""
        async with AsyncExitStack() as undo:
            await self._qmp.get_fd(device, fd)
            await self._qmp.execute("chardev-add", devices.port_chardev(device))
            undo.push_async_callback(self._take_back, "chardev-remove", {"id": device})
            await self._qmp.execute("device_add", devices.port_device(number, device))
            undo.pop_all()

    async def remove_port(self, device: str) -> None:
        """Take a port out; that needs no help of the guest's."""
        await self._qmp.execute("device_del", {"id": device})
        # QEMU still has the device for the moment of an RCU grace period, and with it the socket's chardev, and tells
        # nobody when that is over: chardevs are removed by the next call, and the last ones end with QEMU.
        leftover, self._chardevs = self._chardevs, [device]
        for chardev in leftover:
            try:
                await self._qmp.execute("chardev-remove", {"id": chardev})
            except MachineError:
                self._chardevs.append(chardev)

    async def remove(self, device: str, timeout_s: float) -> None:
        """Take a device out of a running guest and release what was behind it.

        A disk that is in a drive is taken out of that, for which the guest is not asked: it
        must have unmounted it. Raises NotFoundError for a device that is not plugged in,
        MachineError when the guest does not let go of it within the deadline; it is still
        plugged in then.
        """
        if device not in self._parts:
            raise NotFoundError(f"device {device} is not plugged in")
        if device in self._seated:
            await self._set_size(self._seated[device], 0)
            await self._parts.pop(device).aclose()
            return
        deleted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_event(event: Event) -> None:
            if event.data.get("device") != device or deleted.done():
                return
            if event.name == "DEVICE_DELETED":
                deleted.set_result(None)
            elif event.name in ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR"):
                deleted.set_exception(MachineError(f"the guest refuses to let go of device {device}"))

        stop = self._qmp.on_event(on_event)
        try:
            async with asyncio.timeout(timeout_s):
                await self._qmp.execute("device_del", {"id": device})
                await deleted
        except TimeoutError:
            raise MachineError(f"the guest did not let go of device {device} within {timeout_s:g} s") from None
        finally:
            stop()
        await self._parts.pop(device).aclose()

    def _take_slot(self, undo: AsyncExitStack, device: str) -> int:
        slot = self._slots.take(device)
        undo.callback(self._slots.free, device)
        return slot

    async def _add_fd(self, undo: AsyncExitStack | None, fd: int) -> int:
        fdset = self._next_fdset
        self._next_fdset += 1
        await self._qmp.add_fd(fdset, fd)
        if undo is not None:
            undo.push_async_callback(self._take_back, "remove-fd", {"fdset-id": fdset})
        return fdset

    async def _add_extents(self, undo: AsyncExitStack, sources: Sequence[Path | bytes]) -> list[Extent]:
        """Hand over files, or pieces of memory in the shape of one."""
        extents: list[Extent] = []
        with contextlib.ExitStack() as opened:
            fds: dict[int, int] = {}
            for fdset, source in enumerate(sources, start=self._next_fdset):
                fds[fdset] = fd = opened.enter_context(_opened(source, read_only=True))
                name = str(source) if isinstance(source, Path) else "a table"
                extents.append(Extent(name, f"/dev/fdset/{fdset}", os.lseek(fd, 0, os.SEEK_END)))
            self._next_fdset += len(fds)
            for fdset in fds:
                undo.push_async_callback(self._take_back, "remove-fd", {"fdset-id": fdset})
            await self._qmp.add_fds(fds)
        return extents

    async def _add_node(self, undo: AsyncExitStack, node: devices.Arguments) -> None:
        await self._qmp.execute("blockdev-add", node)
        undo.push_async_callback(self._take_back, "blockdev-del", {"node-name": node["node-name"]})

    async def _take_back(self, command: str, arguments: devices.Arguments) -> None:
        """Undo one step. What QEMU refuses now it drops when it ends; the first failure is the one to tell."""
        with contextlib.suppress(MachineError):
            await self._qmp.execute(command, arguments)


@contextlib.contextmanager
def _opened(source: Path | bytes, *, read_only: bool) -> Iterator[int]:
    """A descriptor of a file (or of memory with that content), closed at the end."""
    try:
        fd = _open_memory(source) if isinstance(source, bytes) else _open_file(source, read_only=read_only)
    except OSError as error:
        raise HostError(f"disk {source!s} cannot be opened: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _open_file(path: Path, *, read_only: bool) -> int:
    fd = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(fd)
        raise HostError(f"disk {path}: neither a regular file nor a block device")
    return fd


@contextlib.contextmanager
def _blank() -> Iterator[int]:
    """A file without a name that may have any size."""
    fd = os.memfd_create("qemubox-blank", os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _open_memory(content: bytes) -> int:
    """A read-only file without a name; its writable side is closed before QEMU sees it."""
    writable = os.memfd_create("qemubox", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(content)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
