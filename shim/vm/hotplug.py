"""Plugs devices into a machine over QMP, and takes them out again.

QEMU opens nothing itself: each file is opened here, as root, and handed over (`add-fd`
for what a block node opens by name, `getfd` for what a command takes by name). What was
set up before a step that failed is taken back, so a machine never holds half a device.

Devices go in while the machine is paused, before its first instruction, or while it
runs. They come out only with the guest's help, so only while it runs.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

from shim.errors import HostError, MachineError, NotFoundError
from shim.vm import devices
from shim.vm.devices import Disk, JoinedDisk, Memory, Nic
from shim.vm.machine import SLOTS
from shim.vm.qmp import Event, Qmp
from shim.vm.slots import Slots
from shim.vm.vmdk import Extent, descriptor
from shim.vm.vsock import KernelVsockDevice, VsockDevice


class Hotplug:
    """The devices of one machine beyond those it started with."""

    def __init__(self, qmp: Qmp, *, shared_memory: bool) -> None:
        self._qmp = qmp
        self._slots = Slots(SLOTS)
        self._shared_memory = shared_memory
        self._next_fdset = 1
        # By device id: what takes back its parts, once the device itself is out.
        self._parts: dict[str, AsyncExitStack] = {}

    @property
    def taken(self) -> dict[str, int]:
        """Which slot each device is in."""
        return self._slots.taken

    async def add_disk(self, disk: Disk) -> None:
        """Plug in one file as a disk. Raises HostError for the file, ResourceError for slots, MachineError for QEMU."""
        devices.check_serial(disk.serial)
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, disk.serial)
            with _opened(disk.path, read_only=disk.read_only) as fd:
                block_device = stat.S_ISBLK(os.fstat(fd).st_mode)
                fdset = await self._add_fd(undo, fd)
            node = devices.raw_node(disk.serial, fdset, read_only=disk.read_only, block_device=block_device)
            await self._add_node(undo, node)
            await self._qmp.execute("device_add", devices.disk_device(disk.serial, slot, read_only=disk.read_only))
            self._parts[disk.serial] = undo.pop_all()

    async def add_joined_disk(self, disk: JoinedDisk) -> None:
        """Plug in several files as one disk. Raises as `add_disk`."""
        devices.check_serial(disk.serial)
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, disk.serial)
            extents = [await self._add_extent(undo, source) for source in disk.extents]
            text = await self._add_extent(undo, descriptor(extents))
            await self._add_node(undo, devices.joined_node(disk.serial, text.path))
            await self._qmp.execute("device_add", devices.disk_device(disk.serial, slot, read_only=True))
            self._parts[disk.serial] = undo.pop_all()

    async def add_nic(self, nic: Nic) -> None:
        """Plug in a network interface on an open TAP."""
        tap, vhost = devices.nic_fd_names(nic)
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, nic.name)
            await self._qmp.get_fd(tap, nic.tap_fd)
            if nic.vhost_fd is not None:
                await self._qmp.get_fd(vhost, nic.vhost_fd)
            backend = devices.netdev(nic)
            await self._qmp.execute("netdev_add", backend)
            undo.push_async_callback(self._take_back, "netdev_del", {"id": backend["id"]})
            await self._qmp.execute("device_add", devices.nic_device(nic, slot))
            self._parts[nic.name] = undo.pop_all()

    async def add_memory(self, memory: Memory) -> None:
        """Plug in the memory device; there is one in a machine."""
        async with AsyncExitStack() as undo:
            slot = self._take_slot(undo, devices.MEMORY_DEVICE)
            await self._qmp.execute("object-add", devices.memory_backend(memory, shared=self._shared_memory))
            undo.push_async_callback(self._take_back, "object-del", {"id": devices.MEMORY_BACKEND})
            await self._qmp.execute("device_add", devices.memory_device(memory, slot))
            self._parts[devices.MEMORY_DEVICE] = undo.pop_all()

    async def resize_memory(self, requested_mib: int) -> None:
        """Ask the guest to grow or shrink to `requested_mib`; MEMORY_DEVICE_SIZE_CHANGE tells what it did."""
        await self._qmp.execute("qom-set", devices.memory_request(requested_mib))

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

    async def remove(self, device: str, timeout_s: float) -> None:
        """Take a device out of a running guest and release what was behind it.

        Raises NotFoundError for a device that is not plugged in, MachineError when the
        guest does not let go of it within the deadline; it is still plugged in then.
        """
        if device not in self._parts:
            raise NotFoundError(f"device {device} is not plugged in")
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

    async def _add_fd(self, undo: AsyncExitStack, fd: int) -> int:
        fdset = self._next_fdset
        self._next_fdset += 1
        await self._qmp.add_fd(fdset, fd)
        undo.push_async_callback(self._take_back, "remove-fd", {"fdset-id": fdset})
        return fdset

    async def _add_extent(self, undo: AsyncExitStack, source: Path | bytes) -> Extent:
        """Hand over a file, or a piece of memory in the shape of one."""
        with _opened(source, read_only=True) as fd:
            fdset = await self._add_fd(undo, fd)
            size = os.lseek(fd, 0, os.SEEK_END)
        return Extent(str(source) if isinstance(source, Path) else "a table", f"/dev/fdset/{fdset}", size)

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


def _open_memory(content: bytes) -> int:
    """A read-only file without a name; its writable side is closed before QEMU sees it."""
    writable = os.memfd_create("qemubox", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(writable), "wb") as file:
            file.write(content)
        return os.open(f"/proc/self/fd/{writable}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(writable)
