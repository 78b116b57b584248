"""Sources of block volumes are held as long as a machine may have them. Needs root and loop devices."""

import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from api import guest_pb2
from shim import deadlines
from shim.block_volumes import BlockVolumes, open_all
from shim.errors import HostError, QemuboxError, SpecError
from shim.mounts import BlockVolume
from shim.rootfs.plan import SERIAL_BYTES

_SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(_SIZE))
    return path


@pytest.fixture
def loop(image: Path) -> Iterator[Path]:
    """A block device of the host, on the image."""
    path = Path(_told("losetup", "--find", "--show", str(image)))
    yield path
    _told("losetup", "--detach", str(path))


def _told(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def _volume(source: Path, name: str = "0", *, read_only: bool = False) -> BlockVolume:
    options = ("ro",) if read_only else ()
    return BlockVolume(name, source, "ext4", read_only=read_only, options=options, destination="/data")


async def _opened(*volumes: BlockVolume) -> BlockVolumes:
    return await open_all(volumes, "some-key")


async def _refused(volume: BlockVolume, words: str, kind: type[QemuboxError] = HostError) -> None:
    """Nothing of the source is left open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(kind, match=words) as caught:
        await _opened(volume)
    assert caught.value.message.startswith(f"cannot mount {volume.source} at /data: ")
    assert caught.value.hint
    assert os.listdir("/proc/self/fd") == before


async def test_they_become_disks(image: Path) -> None:
    second = image.with_name("second.img")
    second.write_bytes(bytes(512))
    volumes = await _opened(_volume(image), _volume(second, "4096", read_only=True))
    assert [(disk.read_only, disk.extents[0].size) for disk in volumes.disks] == [(False, _SIZE), (True, 512)]
    assert all(len(disk.serial) <= SERIAL_BYTES for disk in volumes.disks)
    assert volumes.persistent
    writable, readable = volumes.disks
    os.pwrite(writable.extents[0].fd, b"x", 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(readable.extents[0].fd, b"x", 0)
    seats = {disk.serial: f"seat{number}" for number, disk in enumerate(volumes.disks)}

    def seat(layer: guest_pb2.Layer) -> None:
        layer.serial, layer.disk_bytes = seats[layer.serial], 5

    assert volumes.messages(seat) == [
        guest_pb2.BlockVolume(name="0", disk=guest_pb2.Layer(serial="seat0", fstype="ext4", disk_bytes=5)),
        guest_pb2.BlockVolume(
            name="4096", disk=guest_pb2.Layer(serial="seat1", fstype="ext4", options=["ro"], disk_bytes=5)
        ),
    ]
    volumes.close()
    volumes.close()


async def test_without_any_there_is_nothing_to_hold() -> None:
    volumes = await _opened()
    assert (volumes.disks, volumes.persistent, volumes.messages(lambda _: None)) == ((), False, [])
    volumes.close()


@pytest.mark.parametrize(
    ("first", "second", "works"),
    [(False, False, False), (False, True, False), (True, False, False), (True, True, True)],
)
@pytest.mark.parametrize("kind", ["image", "loop"])
async def test_two_machines_never_write_one(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    first: bool,
    second: bool,
    works: bool,
) -> None:
    monkeypatch.setattr(deadlines, "NEW_DEVICE_S", 0.1)
    source: Path = request.getfixturevalue(kind)
    held = await _opened(_volume(source, read_only=first))
    if works:
        (await _opened(_volume(source, read_only=second))).close()
    else:
        await _refused(_volume(source, read_only=second), "in use by another machine|uses it otherwise")
    held.close()
    (await _opened(_volume(source))).close()


async def test_what_a_program_of_the_host_has_locked(image: Path) -> None:
    with image.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        await _refused(_volume(image), "locked by a program of the host")


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_device_that_somebody_only_looks_at_is_waited_for(loop: Path, read_only: bool) -> None:
    """systemd-udevd does, and another machine's shim that is about to read it."""
    for flags, lock in ((0, fcntl.LOCK_SH if not read_only else fcntl.LOCK_EX), (os.O_EXCL, fcntl.LOCK_UN)):
        fd = os.open(loop, os.O_RDONLY | flags)
        fcntl.flock(fd, lock)
        letting_go = threading.Timer(0.1, os.close, (fd,))
        letting_go.start()
        (await _opened(_volume(loop, read_only=read_only))).close()
        letting_go.join()


async def test_a_device_that_the_host_has_mounted(loop: Path, tmp_path: Path) -> None:
    """Not even read-only: what the host writes meanwhile would not be seen, or as nonsense."""
    _told("mkfs.ext4", "-q", str(loop))
    (tmp_path / "mnt").mkdir()
    _told("mount", str(loop), str(tmp_path / "mnt"))
    try:
        for read_only in (False, True):
            await _refused(_volume(loop, read_only=read_only), "the host has mounted the device")
    finally:
        _told("umount", str(tmp_path / "mnt"))
    held = await _opened(_volume(loop))
    with pytest.raises(subprocess.CalledProcessError):
        _told("mount", str(loop), str(tmp_path / "mnt"))
    held.close()


async def test_an_image_that_a_loop_device_has(image: Path, loop: Path) -> None:
    for read_only in (False, True):
        await _refused(_volume(image, read_only=read_only), f"{loop} of the host has it")


async def test_an_image_that_a_loop_device_reads_can_be_read(image: Path) -> None:
    loop = _told("losetup", "--find", "--show", "--read-only", str(image))
    try:
        (await _opened(_volume(image, read_only=True))).close()
        await _refused(_volume(image), f"{loop} of the host has it")
    finally:
        _told("losetup", "--detach", loop)


@pytest.mark.parametrize("size", [0, 511, 513])
async def test_a_size_that_is_no_disk_s(image: Path, size: int) -> None:
    os.truncate(image, size)
    await _refused(_volume(image), f"it has {size} bytes", SpecError)


async def test_what_has_become_something_else(image: Path, tmp_path: Path) -> None:
    """Since it was looked at; a FIFO must keep nobody waiting."""
    image.unlink()
    with pytest.raises(HostError, match="No such file"):
        await _opened(_volume(image))
    os.mkfifo(image)
    with pytest.raises(SpecError, match="no block device and no file any more"):
        await _opened(_volume(image))
    with pytest.raises(HostError, match="Is a directory"):
        await _opened(_volume(tmp_path))


async def test_after_one_that_fails_none_is_held(image: Path, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        await _opened(_volume(image), _volume(tmp_path / "none", "1"))
    (await _opened(_volume(image))).close()
