"""What a machine can be given, as values, and the QMP commands that plug each in.

Nothing here does I/O: the functions answer argument lists for `blockdev-add`,
`device_add` and so on (QEMU QMP Reference Manual), and hotplug.py carries them out.

Every device is told by an id of ours, which is also the disk's `serial`: a guest finds
its disks by that, never by letter, because the order in which it sees hot-plugged disks
differs from one start to the next.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.errors import HostError
from shim.vm.machine import MEMORY_DEVICE, SLOT_BUS, drive_properties, port_properties
from shim.vm.vsock import KernelVsockDevice, VsockDevice

Arguments = dict[str, object]

# virtio-blk's serial is a field of this size (virtio specification 1.2, 5.2.6).
SERIAL_LIMIT: Final = 20
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Disk:
    """One raw file (or block device of the host) as one disk.

    A read-only disk is not locked: many machines read the same layer, and nobody writes
    it. A writable one is locked by QEMU, so that a second machine, or a tool that asks,
    is refused; blocks that the guest frees, and blocks of zeros, become holes.
    """

    serial: str
    path: Path
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class JoinedDisk:
    """Several files as one read-only disk, in this order; bytes stand for a file of that content.

    Each must be a whole number of 512-byte sectors long. Meant for a partition table,
    then one file system after the other.
    """

    serial: str
    extents: tuple[Path | bytes, ...]


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface on an open TAP (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR).

    It has as many pairs of queues as there are descriptors; if several, the TAP is IFF_MULTI_QUEUE. `vhost_fds` are as
    many open /dev/vhost-net, if the host has it: the kernel carries the frames then, and not QEMU. All descriptors stay
    the caller's, who may close them once the interface is plugged in. `mtu` is what the guest's driver has from the
    first, and as the most; 0: whatever it likes.
    """

    name: str
    mac: str
    tap_fds: tuple[int, ...]
    vhost_fds: tuple[int, ...] = ()
    mtu: int = 0


# virtio-mem's block size with 2 MiB pages on x86_64; what may be plugged is a multiple of it.
MEMORY_STEP_MIB: Final = 2
VSOCK_DEVICE: Final = "vsock"
VSOCK_CHARDEV: Final = "vsock-daemon"
VSOCK_FD: Final = "vsock-fd"
BLANK: Final = "blank"
# The virtiofs device, its tag in the guest, and its daemon's socket.
SHARE: Final = "volumes"
SHARE_CHARDEV: Final = "volumes-daemon"
# The most that either virtiofsd takes: requests that may be under way.
_SHARE_QUEUE: Final = 1024


def check_serial(serial: str) -> None:
    """Raise HostError for a text that cannot be a disk's serial and a QEMU id at once."""
    plain = serial.replace("-", "").replace("_", "").replace(".", "")
    if not (0 < len(serial) <= SERIAL_LIMIT and serial[0].isalpha() and plain.isalnum() and serial.isascii()):
        raise HostError(
            f"disk {serial!r}: a name must be 1 to {SERIAL_LIMIT} letters, digits, dashes, dots and underscores, "
            "a letter first"
        )


def node_name(serial: str) -> str:
    """The block node of a disk; a prefix keeps it apart from the device's id."""
    return f"node-{serial}"


def raw_node(serial: str, fdset: int, *, read_only: bool, block_device: bool) -> Arguments:
    """`blockdev-add` for a file that QEMU has as /dev/fdset/<fdset>.

    The host's page cache is used (cache.direct off): layers are shared between machines
    and read again and again. A guest's flush is honoured (no-flush off). I/O goes
    through QEMU's threads, which work on every kernel and file system; io_uring is
    forbidden on some hosts, and native AIO needs O_DIRECT.
    """
    node: Arguments = {
        "driver": "host_device" if block_device else "file",
        "node-name": node_name(serial),
        "filename": f"/dev/fdset/{fdset}",
        "read-only": read_only,
        "cache": {"direct": False, "no-flush": False},
        "aio": "threads",
    }
    if read_only:
        return node | {"locking": "off"}
    return node | {"locking": "on", "discard": "unmap", "detect-zeroes": "unmap"}


def joined_node(serial: str, descriptor_path: str) -> Arguments:
    """`blockdev-add` for a VMDK; `descriptor_path` is what QEMU opens, /dev/fdset/N.

    The extents inherit read-only. They cannot be told not to lock; for reading these are
    shared locks, which do not keep other readers away.
    """
    return {
        "driver": "vmdk",
        "node-name": node_name(serial),
        "read-only": True,
        "file": {
            "driver": "file",
            "filename": descriptor_path,
            "read-only": True,
            "locking": "off",
        },
    }


def disk_device(serial: str, slot: int, *, read_only: bool) -> Arguments:
    """`device_add` for a disk in a slot."""
    return _place(slot) | {
        "driver": "virtio-blk-pci",
        "id": serial,
        "drive": node_name(serial),
        "serial": serial,
        **drive_properties(read_only=read_only),
    }


def blank_node(fdset: int) -> Arguments:
    """`blockdev-add` for the medium by which a drive's size is set (drives.py)."""
    return {
        "driver": "file",
        "node-name": BLANK,
        "filename": f"/dev/fdset/{fdset}",
        "locking": "off",
        "aio": "threads",
    }


def medium(drive: str, node: str) -> Arguments:
    """`qom-set` that puts another medium into a drive."""
    return {"path": f"/machine/peripheral/{drive}", "property": "drive", "value": node}


def resize(node: str, size: int) -> Arguments:
    """`block_resize`, in bytes."""
    return {"node-name": node, "size": size}


def netdev(nic: Nic) -> Arguments:
    """`netdev_add` for an interface whose descriptors QEMU knows by the names of `tap_names` and `vhost_names`."""
    backend: Arguments = {"type": "tap", "id": f"net-{nic.name}", "fds": ":".join(tap_names(nic))}
    return backend | {"vhost": True, "vhostfds": ":".join(vhost_names(nic))} if nic.vhost_fds else backend


def tap_names(nic: Nic) -> list[str]:
    """What QEMU knows the descriptors of the TAP by."""
    return [f"tap-{nic.name}-{queue}" for queue, _ in enumerate(nic.tap_fds)]


def vhost_names(nic: Nic) -> list[str]:
    """What QEMU knows those of /dev/vhost-net by."""
    return [f"vhost-{nic.name}-{queue}" for queue, _ in enumerate(nic.vhost_fds)]


def nic_device(nic: Nic, slot: int) -> Arguments:
    """`device_add` for an interface. No boot ROM: nothing boots from it.

    Checksums and segmentation are left to the host, as virtio-net does where nothing forbids it. Of several queues each
    has an interrupt for each direction, and there is one for changes and one for commands (virtio specification 5.1.2).
    """
    device = _place(slot) | {
        "driver": "virtio-net-pci",
        "id": nic.name,
        "netdev": f"net-{nic.name}",
        "mac": nic.mac,
        "disable-legacy": "on",
        "romfile": "",
    }
    if nic.mtu:
        device |= {"host_mtu": nic.mtu}
    if len(nic.tap_fds) > 1:
        device |= {"mq": True, "vectors": 2 * len(nic.tap_fds) + 2}
    return device


def check_memory(requested_mib: int, room_mib: int) -> None:
    """Raise HostError for a size that the memory device cannot have: of steps, and at most `room_mib`."""
    if requested_mib % MEMORY_STEP_MIB:
        raise HostError(f"{requested_mib} MiB of memory: must be a multiple of {MEMORY_STEP_MIB} MiB")
    if not 0 <= requested_mib <= room_mib:
        raise HostError(f"{requested_mib} MiB of memory: the virtual machine has room for {room_mib} MiB")


def memory_request(requested_mib: int) -> Arguments:
    """`qom-set` that asks the guest to grow or shrink to this much."""
    return {"path": memory_path(), "property": "requested-size", "value": requested_mib * MIB}


def memory_path() -> str:
    """Where QEMU's object model has the memory device."""
    return f"/machine/peripheral/{MEMORY_DEVICE}"


def vsock_chardev() -> Arguments:
    """`chardev-add` for a daemon's socket that QEMU knows as VSOCK_FD."""
    return _socket_chardev(VSOCK_CHARDEV, VSOCK_FD)


def port_chardev(device: str) -> Arguments:
    """`chardev-add` for a port's socket that QEMU knows by the port's id."""
    return _socket_chardev(device, device)


def port_device(number: int, device: str) -> Arguments:
    """`device_add` for a virtio-serial port."""
    return {"driver": "virtserialport", **port_properties(number, device)}


def vsock_device(vsock: VsockDevice, slot: int) -> Arguments:
    """`device_add` for vsock; the kernel's descriptor QEMU knows as VSOCK_FD."""
    if isinstance(vsock, KernelVsockDevice):
        return _place(slot) | {
            "driver": "vhost-vsock-pci",
            "id": VSOCK_DEVICE,
            "guest-cid": vsock.cid,
            "vhostfd": VSOCK_FD,
        }
    return _place(slot) | {"driver": "vhost-user-vsock-pci", "id": VSOCK_DEVICE, "chardev": VSOCK_CHARDEV}


def share_chardev() -> Arguments:
    """`chardev-add` for virtiofsd's socket that QEMU knows by the chardev's name."""
    return _socket_chardev(SHARE_CHARDEV, SHARE_CHARDEV)


def share_device(slot: int) -> Arguments:
    """`device_add` for virtiofs. QEMU asks virtiofsd for its features now."""
    return _place(slot) | {
        "driver": "vhost-user-fs-pci",
        "id": SHARE,
        "chardev": SHARE_CHARDEV,
        "tag": SHARE,
        "queue-size": _SHARE_QUEUE,
    }


def _place(slot: int) -> Arguments:
    return {"bus": SLOT_BUS, "addr": f"{slot:#x}"}


def _socket_chardev(chardev: str, fd_name: str) -> Arguments:
    address: Arguments = {"type": "fd", "data": {"str": fd_name}}
    return {"id": chardev, "backend": {"type": "socket", "data": {"addr": address, "server": False}}}
