"""The QMP arguments of every device, whole."""

from pathlib import Path

import pytest

from shim.errors import HostError
from shim.vm import devices
from shim.vm.devices import Disk, Memory, Nic
from shim.vm.vsock import KernelVsockDevice, UserVsockDevice

GIB = 1 << 30


def test_a_read_only_disk() -> None:
    disk = Disk("layer0", Path("/x"))
    assert devices.raw_node(disk.serial, 3, read_only=disk.read_only, block_device=False) == {
        "driver": "file",
        "node-name": "node-layer0",
        "filename": "/dev/fdset/3",
        "read-only": True,
        "cache": {"direct": False, "no-flush": False},
        "aio": "threads",
        "locking": "off",
    }
    assert devices.disk_device("layer0", 5, read_only=True) == {
        "bus": "slots",
        "addr": "0x5",
        "driver": "virtio-blk-pci",
        "id": "layer0",
        "drive": "node-layer0",
        "serial": "layer0",
        "disable-legacy": "on",
        "num-queues": 1,
        "werror": "report",
        "rerror": "report",
    }


def test_a_writable_disk_is_locked_and_gives_freed_blocks_back() -> None:
    node = devices.raw_node("rw", 1, read_only=False, block_device=False)
    assert node["locking"] == "on"
    assert (node["discard"], node["detect-zeroes"]) == ("unmap", "unmap")
    assert node["read-only"] is False
    device = devices.disk_device("rw", 31, read_only=False)
    assert (device["discard"], device["write-zeroes"], device["addr"]) == (True, True, "0x1f")


def test_a_block_device_has_its_own_driver() -> None:
    assert devices.raw_node("rw", 1, read_only=False, block_device=True)["driver"] == "host_device"


def test_a_joined_disk_reads_its_descriptor() -> None:
    assert devices.joined_node("layers", "/dev/fdset/9") == {
        "driver": "vmdk",
        "node-name": "node-layers",
        "read-only": True,
        "file": {"driver": "file", "filename": "/dev/fdset/9", "read-only": True, "locking": "off"},
    }


@pytest.mark.parametrize("serial", ["layer0", "rw-0123456789abcdef0", "a", "A_b.c"])
def test_names_that_can_be_serials(serial: str) -> None:
    devices.check_serial(serial)


@pytest.mark.parametrize("serial", ["", "0a", "-a", "a b", "a/b", "a,b", "x" * 21, "ä", "a\n"])
def test_names_that_cannot(serial: str) -> None:
    with pytest.raises(HostError, match="a name must be"):
        devices.check_serial(serial)


def test_an_interface() -> None:
    nic = Nic("eth0", "02:00:00:00:00:01", tap_fd=9)
    assert devices.netdev(nic) == {"type": "tap", "id": "net-eth0", "fd": "tap-eth0"}
    assert devices.nic_device(nic, 2) == {
        "bus": "slots",
        "addr": "0x2",
        "driver": "virtio-net-pci",
        "id": "eth0",
        "netdev": "net-eth0",
        "mac": "02:00:00:00:00:01",
        "disable-legacy": "on",
        "romfile": "",
    }


def test_an_interface_with_the_hosts_help() -> None:
    backend = devices.netdev(Nic("eth0", "02:00:00:00:00:01", tap_fd=9, vhost_fd=10))
    assert (backend["vhost"], backend["vhostfd"]) == (True, "vhost-eth0")


def test_memory() -> None:
    memory = Memory(max_mib=2048, requested_mib=514)
    assert devices.memory_backend(memory, shared=False) == {
        "qom-type": "memory-backend-ram",
        "id": "hotplug-ram",
        "size": 2 * GIB,
        "reserve": False,
    }
    assert devices.memory_backend(memory, shared=True) == {
        "qom-type": "memory-backend-memfd",
        "share": True,
        "id": "hotplug-ram",
        "size": 2 * GIB,
        "reserve": False,
    }
    assert devices.memory_device(memory, 4) == {
        "bus": "slots",
        "addr": "0x4",
        "driver": "virtio-mem-pci",
        "id": "memory",
        "memdev": "hotplug-ram",
        "requested-size": 514 << 20,
    }
    assert devices.memory_request(512)["value"] == 512 << 20


@pytest.mark.parametrize(("most", "now"), [(511, 2), (512, 3), (512, 514), (0, 0), (512, -2)])
def test_impossible_memory(most: int, now: int) -> None:
    with pytest.raises(HostError, match="hot-plugged memory"):
        devices.memory_backend(Memory(most, now), shared=False)


def test_vsock_by_the_kernel() -> None:
    assert devices.vsock_device(KernelVsockDevice(cid=70000, vhost_fd=5), 1) == {
        "bus": "slots",
        "addr": "0x1",
        "driver": "vhost-vsock-pci",
        "id": "vsock",
        "guest-cid": 70000,
        "vhostfd": "vsock-fd",
    }


def test_vsock_by_the_daemon() -> None:
    assert devices.vsock_device(UserVsockDevice(cid=70000, vhost_user_fd=5), 1) == {
        "bus": "slots",
        "addr": "0x1",
        "driver": "vhost-user-vsock-pci",
        "id": "vsock",
        "chardev": "vsock-daemon",
    }
    assert devices.vsock_chardev() == {
        "id": "vsock-daemon",
        "backend": {
            "type": "socket",
            "data": {"addr": {"type": "fd", "data": {"str": "vsock-fd"}}, "server": False},
        },
    }
