"""The QMP arguments of every device, whole."""

from pathlib import Path

import pytest

from shim.errors import HostError
from shim.vm import devices
from shim.vm.devices import Disk, Nic
from shim.vm.vsock import KernelVsockDevice, UserVsockDevice


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
    assert (device["discard"], device["write-zeroes"], device["addr"]) == ("on", "on", "0x1f")


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
    nic = Nic("eth0", "02:00:00:00:00:01", (9,))
    assert devices.netdev(nic) == {"type": "tap", "id": "net-eth0", "fds": "tap-eth0-0"}
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
    backend = devices.netdev(Nic("eth0", "02:00:00:00:00:01", (9,), (10,)))
    assert (backend["vhost"], backend["vhostfds"]) == (True, "vhost-eth0-0")


def test_an_interface_of_several_queues() -> None:
    """An interrupt for each direction of each, one for changes, one for commands."""
    nic = Nic("eth0", "02:00:00:00:00:01", (9, 10, 11), (12, 13, 14), mtu=9000)
    backend = devices.netdev(nic)
    assert backend["fds"] == "tap-eth0-0:tap-eth0-1:tap-eth0-2"
    assert backend["vhostfds"] == "vhost-eth0-0:vhost-eth0-1:vhost-eth0-2"
    device = devices.nic_device(nic, 2)
    assert (device["mq"], device["vectors"], device["host_mtu"]) == (True, 8, 9000)


def test_memory() -> None:
    assert devices.memory_request(512) == {
        "path": "/machine/peripheral/memory",
        "property": "requested-size",
        "value": 512 << 20,
    }
    devices.check_memory(0, 0)
    devices.check_memory(512, 512)


@pytest.mark.parametrize(("room", "wanted"), [(512, 3), (512, 514), (0, 2), (512, -2)])
def test_impossible_memory(room: int, wanted: int) -> None:
    with pytest.raises(HostError, match=f"^{wanted} MiB of memory"):
        devices.check_memory(wanted, room)


def test_a_drive_is_given_a_size_and_a_medium() -> None:
    assert devices.blank_node(7) == {
        "driver": "file",
        "node-name": "blank",
        "filename": "/dev/fdset/7",
        "locking": "off",
        "aio": "threads",
    }
    assert devices.resize("blank", 512) == {"node-name": "blank", "size": 512}
    assert devices.medium("layer0", "node-x") == {
        "path": "/machine/peripheral/layer0",
        "property": "drive",
        "value": "node-x",
    }


def test_a_port() -> None:
    assert devices.port_chardev("port-5.2") == {
        "id": "port-5.2",
        "backend": {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": "port-5.2"}}, "server": False}},
    }
    assert devices.port_device(5, "port-5.2") == {
        "driver": "virtserialport",
        "id": "port-5.2",
        "bus": "ports.0",
        "nr": 6,
        "chardev": "port-5.2",
        "name": "qemubox-port-005",
    }


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
