"""Which commands plug a device in, and that a failure takes all of them back."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shim.errors import HostError, MachineError, NotFoundError, ResourceError
from shim.vm import devices
from shim.vm.devices import Disk, JoinedDisk, Nic
from shim.vm.hotplug import Hotplug, Seat
from shim.vm.machine import LAYER_DRIVES, SLOTS, WRITABLE_DRIVES
from shim.vm.qmp import Qmp
from shim.vm.vsock import KernelVsockDevice, UserVsockDevice
from tests.unit.shim.vm.qmp_peer import QmpPeer


@pytest.fixture
async def hotplug(peer: QmpPeer) -> AsyncIterator[Hotplug]:
    qmp = Qmp(command_timeout_s=10)
    peer.start()
    await qmp.open(peer.ours)
    before = set(os.listdir("/proc/self/fd"))
    yield Hotplug(qmp)
    assert set(os.listdir("/proc/self/fd")) == before
    await qmp.close(10)


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.write_bytes(b"L" * 512)
    return path


@pytest.fixture
async def full(hotplug: Hotplug, peer: QmpPeer, layer: Path) -> Hotplug:
    """All drives have a disk: the next one is plugged in."""
    for number in range(len(LAYER_DRIVES)):
        await hotplug.add_disk(Disk(f"first{number}", layer))
    for number in range(len(WRITABLE_DRIVES)):
        await hotplug.add_disk(Disk(f"writable-{number}", layer, read_only=False))
    peer.commands.clear()
    peer.files.clear()
    return hotplug


def _media(peer: QmpPeer) -> list[tuple[object, object]]:
    """What was put into which drive, in order."""
    return [
        (str(arguments["path"]).rpartition("/")[2], arguments["value"])
        for name, arguments in peer.commands
        if name == "qom-set"
    ]


async def test_a_disk_is_handed_over_then_opened_then_put_into_a_drive(
    hotplug: Hotplug, peer: QmpPeer, layer: Path
) -> None:
    assert await hotplug.add_disk(Disk("x", layer)) == Seat("layer0", 512)
    assert peer.names == ["add-fd", "blockdev-add", "add-fd", "blockdev-add", "qom-set", "block_resize", "qom-set"]
    assert peer.files == {1: b"L" * 512, 2: b""}
    assert peer.commands[2][1]["filename"] == "/dev/fdset/1"
    assert _media(peer) == [("layer0", "blank"), ("layer0", "node-x")]
    assert hotplug.taken == {}


async def test_many_files_are_handed_over_without_waiting_for_each(
    hotplug: Hotplug, peer: QmpPeer, tmp_path: Path
) -> None:
    """More than are sent at once, and each becomes the set that the descriptor names in its place."""
    paths = tuple(tmp_path / str(number) for number in range(130))
    for number, path in enumerate(paths):
        path.write_bytes(str(number).encode().ljust(512))
    assert await hotplug.add_joined_disk(JoinedDisk("many", paths)) == Seat("layer0", 130 * 512)
    assert peer.names[:132] == ["add-fd"] * 131 + ["blockdev-add"]
    assert [peer.files[number + 1].strip() for number in range(130)] == [str(number).encode() for number in range(130)]
    lines = [line for line in peer.files[131].decode().splitlines() if line.startswith("RW ")]
    assert lines == [f'RW 1 FLAT "/dev/fdset/{number}" 0' for number in range(1, 131)]


async def test_a_file_that_qemu_does_not_take_is_missed_when_it_is_opened(
    hotplug: Hotplug, peer: QmpPeer, layer: Path
) -> None:
    peer.refused["blockdev-add"] = "Could not open '/dev/fdset/1'"
    with pytest.raises(MachineError, match="Could not open '/dev/fdset/1'"):
        await hotplug.add_joined_disk(JoinedDisk("x", (layer, layer)))
    assert peer.names.count("remove-fd") == 3


async def test_the_second_disk_needs_no_second_blank(hotplug: Hotplug, peer: QmpPeer, layer: Path) -> None:
    await hotplug.add_disk(Disk("x", layer))
    peer.commands.clear()
    assert await hotplug.add_disk(Disk("y", layer, read_only=False)) == Seat("writable0", 512)
    assert peer.names == ["add-fd", "blockdev-add", "qom-set", "block_resize", "qom-set"]
    assert peer.commands[-2][1] == {"node-name": "blank", "size": 512}


async def test_beyond_the_drives_disks_are_plugged_in(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    assert await full.add_disk(Disk("more", layer)) == Seat("more", 0)
    assert peer.names == ["add-fd", "blockdev-add", "device_add"]
    assert full.taken == {"more": 1}


async def test_a_joined_disk_hands_over_each_file_and_the_descriptor(
    hotplug: Hotplug, peer: QmpPeer, layer: Path
) -> None:
    seat = await hotplug.add_joined_disk(JoinedDisk("layers", (b"T" * 1024, layer, layer)))
    assert seat == Seat("layer0", 2048)
    assert peer.names[:5] == ["add-fd"] * 4 + ["blockdev-add"]
    assert [peer.files[n] for n in (1, 2, 3)] == [b"T" * 1024, b"L" * 512, b"L" * 512]
    descriptor = peer.files[4].decode()
    assert 'RW 2 FLAT "/dev/fdset/1" 0\nRW 1 FLAT "/dev/fdset/2" 0\nRW 1 FLAT "/dev/fdset/3" 0\n' in descriptor
    (node,) = [arguments for name, arguments in peer.commands if arguments.get("node-name") == "node-layers"]
    assert node["file"] == {
        "driver": "file",
        "filename": "/dev/fdset/4",
        "read-only": True,
        "locking": "off",
    }


async def test_a_drive_is_emptied_before_its_disk_is_let_go_of(hotplug: Hotplug, peer: QmpPeer, layer: Path) -> None:
    """The guest is told that it is of no size, so that the next disk of the same size is news."""
    await hotplug.add_disk(Disk("x", layer))
    peer.commands.clear()
    await hotplug.remove("x", 10)
    assert peer.names == ["qom-set", "block_resize", "qom-set", "blockdev-del", "remove-fd"]
    assert peer.commands[1][1]["size"] == 0
    assert _media(peer) == [("layer0", "blank"), ("layer0", "empty-read-only")]
    assert await hotplug.add_disk(Disk("y", layer)) == Seat("layer0", 512)


@pytest.mark.parametrize("failing", ["qom-set", "block_resize"])
async def test_a_disk_that_does_not_get_into_its_drive_is_taken_back(
    hotplug: Hotplug, peer: QmpPeer, layer: Path, failing: str
) -> None:
    peer.refused[failing] = "no"
    with pytest.raises(MachineError, match=f"QEMU refused {failing}"):
        await hotplug.add_disk(Disk("x", layer))
    assert peer.names[-3:] == ["qom-set", "blockdev-del", "remove-fd"]
    peer.refused.clear()
    assert await hotplug.add_disk(Disk("x", layer)) == Seat("layer0", 512)


async def test_a_port_is_handed_over_and_comes_out_again(hotplug: Hotplug, peer: QmpPeer) -> None:
    fd = os.memfd_create("port")
    await hotplug.add_port(5, "port-5.2", fd)
    assert peer.names == ["getfd", "chardev-add", "device_add"]
    peer.commands.clear()
    await hotplug.remove_port("port-5.2")
    assert peer.commands == [("device_del", {"id": "port-5.2"})]
    peer.refused["device_add"] = "no"
    with pytest.raises(MachineError, match=r"QEMU refused device_add port-5\.2"):
        await hotplug.add_port(5, "port-5.2", fd)
    assert peer.names[-1] == "chardev-remove"
    os.close(fd)


async def test_a_port_s_chardev_is_removed_once_qemu_has_let_go_of_it(hotplug: Hotplug, peer: QmpPeer) -> None:
    """QEMU holds it for a moment after device_del, and says that it is busy."""
    removed = []
    peer.before_answer["chardev-remove"] = lambda: removed.append(peer.commands[-1][1]["id"])
    for refused, device in (("", "port-1"), ("busy", "port-2"), ("busy", "port-3"), ("", "port-4"), ("", "port-5")):
        peer.refused.clear()
        if refused:
            peer.refused["chardev-remove"] = refused
        await hotplug.remove_port(device)
    assert removed == ["port-1", "port-2", "port-1", "port-3", "port-2", "port-1", "port-4"]


async def test_an_interface(hotplug: Hotplug, peer: QmpPeer) -> None:
    files = {name: os.memfd_create(name) for name in ("tap-eth0-0", "tap-eth0-1", "vhost-eth0-0", "vhost-eth0-1")}
    for name, fd in files.items():
        os.write(fd, name.encode())
    fds = tuple(files.values())
    await hotplug.add_nic(Nic("eth0", "02:00:00:00:00:01", fds[:2], fds[2:]))
    assert peer.names == [*(["getfd"] * 4), "netdev_add", "device_add"]
    assert peer.files == {name: name.encode() for name in files}
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("failing", ["getfd", "netdev_add"])
async def test_descriptors_that_no_interface_took_are_closed(hotplug: Hotplug, peer: QmpPeer, failing: str) -> None:
    """A TAP is there as long as QEMU has it open, whether it uses it or not."""
    peer.refused[failing] = "no"
    fd = os.memfd_create("tap")
    with pytest.raises(MachineError, match=f"QEMU refused {failing}"):
        await hotplug.add_nic(Nic("eth0", "02:00:00:00:00:01", (fd, fd)))
    os.close(fd)
    assert peer.names == (["getfd"] if failing == "getfd" else ["getfd", "getfd", "netdev_add", "closefd", "closefd"])
    assert hotplug.taken == {}


async def test_memory(hotplug: Hotplug, peer: QmpPeer) -> None:
    await hotplug.resize_memory(1024)
    assert peer.commands[-1] == ("qom-set", devices.memory_request(1024))


async def test_vsock_both_ways(hotplug: Hotplug, peer: QmpPeer) -> None:
    fd = os.memfd_create("vsock")
    await hotplug.add_vsock(KernelVsockDevice(70000, fd))
    assert peer.names == ["getfd", "device_add"]
    peer.commands.clear()
    with pytest.raises(ResourceError):
        await hotplug.add_vsock(UserVsockDevice(70000, fd))
    os.close(fd)


async def test_vsock_by_the_daemon(hotplug: Hotplug, peer: QmpPeer) -> None:
    fd = os.memfd_create("vsock")
    await hotplug.add_vsock(UserVsockDevice(70000, fd))
    assert peer.names == ["getfd", "chardev-add", "device_add"]
    os.close(fd)


@pytest.mark.parametrize("failing", ["add-fd", "blockdev-add", "device_add"])
async def test_a_failure_takes_the_disk_back(full: Hotplug, peer: QmpPeer, layer: Path, failing: str) -> None:
    peer.refused[failing] = "no"
    with pytest.raises(MachineError, match=f"QEMU refused {failing}"):
        await full.add_disk(Disk("layer0", layer))
    steps = ["add-fd", "blockdev-add", "device_add"]
    undone = {"add-fd": [], "blockdev-add": ["remove-fd"], "device_add": ["blockdev-del", "remove-fd"]}
    assert peer.names == steps[: steps.index(failing) + 1] + undone[failing]
    assert full.taken == {}
    peer.refused.clear()
    await full.add_disk(Disk("layer0", layer))
    assert full.taken == {"layer0": 1}


async def test_a_failure_takes_the_joined_disk_back(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    peer.refused["device_add"] = "no"
    with pytest.raises(MachineError):
        await full.add_joined_disk(JoinedDisk("layers", (layer, layer)))
    assert peer.names[-4:] == ["blockdev-del", "remove-fd", "remove-fd", "remove-fd"]
    assert full.taken == {}


async def test_a_failure_takes_interface_and_vsock_back(hotplug: Hotplug, peer: QmpPeer) -> None:
    peer.refused["device_add"] = "no"
    fd = os.memfd_create("x")
    for plugging, undone in (
        (hotplug.add_nic(Nic("eth0", "02:00:00:00:00:01", (fd,))), "netdev_del"),
        (hotplug.add_vsock(UserVsockDevice(70000, fd)), "chardev-remove"),
    ):
        with pytest.raises(MachineError, match="QEMU refused device_add"):
            await plugging
        assert peer.names[-1] == undone
    assert hotplug.taken == {}
    os.close(fd)


async def test_a_failing_undo_does_not_hide_the_failure(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    peer.refused |= {"device_add": "the reason", "blockdev-del": "busy", "remove-fd": "busy"}
    with pytest.raises(MachineError, match="the reason"):
        await full.add_disk(Disk("layer0", layer))
    assert full.taken == {}


async def test_a_cancelled_disk_is_taken_back(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    peer.silent.add("device_add")
    reached = asyncio.Event()
    peer.before_answer["device_add"] = reached.set
    task = asyncio.create_task(full.add_disk(Disk("layer0", layer)))
    async with asyncio.timeout(10):
        await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert peer.names[-2:] == ["blockdev-del", "remove-fd"]
    assert full.taken == {}


@pytest.mark.parametrize(
    ("path", "words"),
    [("/nonexistent/layer", "No such file"), ("/proc", "neither a regular file"), ("/dev/null", "neither a regular")],
)
async def test_files_that_cannot_be_disks(hotplug: Hotplug, peer: QmpPeer, path: str, words: str) -> None:
    with pytest.raises(HostError, match=f"disk {path}.*{words}"):
        await hotplug.add_disk(Disk("layer0", Path(path)))
    assert peer.names == []
    assert hotplug.taken == {}


async def test_a_fifo_does_not_block(hotplug: Hotplug, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(HostError, match="neither a regular file"):
        await hotplug.add_disk(Disk("layer0", tmp_path / "fifo"))


async def test_slots_run_out(full: Hotplug, layer: Path) -> None:
    for number in range(SLOTS):
        await full.add_disk(Disk(f"more{number}", layer))
    with pytest.raises(ResourceError, match=f"all {SLOTS} slots"):
        await full.add_disk(Disk("more", layer))


async def test_remove_waits_for_the_guest_then_releases_everything(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    await full.add_disk(Disk("layer0", layer))
    peer.commands.clear()

    def deleted() -> None:
        peer.event("DEVICE_DELETED", path="/machine/peripheral/layer0/virtio-backend")
        peer.event("DEVICE_DELETED", device="layer1", path="/machine/peripheral/layer1")
        peer.event("DEVICE_DELETED", device="layer0", path="/machine/peripheral/layer0")

    peer.before_answer["device_del"] = deleted
    await full.remove("layer0", 10)
    assert peer.names == ["device_del", "blockdev-del", "remove-fd"]
    assert full.taken == {}


async def test_a_guest_that_does_not_let_go(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    await full.add_disk(Disk("layer0", layer))
    with pytest.raises(MachineError, match=r"did not let go of device layer0 within 0\.05 s"):
        await full.remove("layer0", 0.05)
    assert full.taken == {"layer0": 1}


async def test_a_guest_that_refuses(full: Hotplug, peer: QmpPeer, layer: Path) -> None:
    await full.add_disk(Disk("layer0", layer))
    peer.before_answer["device_del"] = lambda: peer.event("DEVICE_UNPLUG_GUEST_ERROR", device="layer0", path="x")
    with pytest.raises(MachineError, match="refuses to let go of device layer0"):
        await full.remove("layer0", 10)
    assert full.taken == {"layer0": 1}


async def test_what_is_not_plugged_in_cannot_be_removed(hotplug: Hotplug, peer: QmpPeer) -> None:
    with pytest.raises(NotFoundError, match="layer0 is not plugged in"):
        await hotplug.remove("layer0", 10)
    assert peer.names == []


async def test_virtiofs_has_its_daemons_socket_to_itself(hotplug: Hotplug, peer: QmpPeer) -> None:
    """Ours is closed, so that the end of QEMU is the end of the connection."""
    ours, theirs = socket.socketpair()
    with theirs:
        await hotplug.add_share(ours)
        assert ours.fileno() == -1
    assert [name for name, _ in peer.commands[1:]] == ["getfd", "chardev-add", "device_add"]
    assert peer.commands[-1][1] == devices.share_device(1)
    assert peer.commands[-1][1]["tag"] == "volumes"


async def test_virtiofs_that_is_refused_leaves_no_chardev(hotplug: Hotplug, peer: QmpPeer) -> None:
    peer.refused["device_add"] = "no"
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(MachineError):
        await hotplug.add_share(ours)
    assert [name for name, _ in peer.commands][-1] == "chardev-remove"
    assert hotplug.taken == {}
