"""Disks of the host as a container's volumes: mounted by the real kernel from loop devices, and put into its view."""

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from vminitd import block_volumes
from vminitd.block_volumes import BlockVolume, BlockVolumes, parameters, with_devices
from vminitd.disks import Layer
from vminitd.errors import MountError, RequestError
from vminitd.libc import MNT_DETACH, umount
from vminitd.spec import Json, JsonValue
from vminitd.uevent import Uevents

_NO_UEVENTS = Uevents.__new__(Uevents)


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Makes a loop device with a file system; those that are left are detached."""
    made: list[str] = []

    def make(kind: str) -> str:
        image = tmp_path / f"image{len(made)}"
        with image.open("wb") as file:
            file.truncate(16 << 20)
        if kind == "ext4":
            subprocess.run(["mkfs.ext4", "-q", image], check=True)
        device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True)
        made.append(device.stdout.strip())
        return made[-1]

    yield make
    for device in made:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[BlockVolumes]:
    yield BlockVolumes(str(tmp_path))
    for mounted in (tmp_path / "disks").glob("*"):
        with suppress(OSError):
            umount(str(mounted), MNT_DETACH)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The devices by serial number."""
    devices: dict[str, str] = {}

    async def found(_: Uevents, layers: Sequence[Layer]) -> list[str]:
        return [devices[layer.serial] for layer in layers]

    monkeypatch.setattr(block_volumes, "devices_of", found)
    return devices


def _volume(name: str, fstype: str = "ext4", *options: str) -> BlockVolume:
    return BlockVolume(name, Layer(f"serial-{name}", 0, fstype, options))


def _interrupt(device: str) -> None:
    """Leave the file system as one that was mounted when its machine ended: by its feature "needs_recovery"."""
    subprocess.run(["debugfs", "-w", "-R", "feature +needs_recovery", device], check=True, capture_output=True)


def _read_only(device: str, on: bool) -> None:
    subprocess.run(["blockdev", "--setro" if on else "--setrw", device], check=True)


def _superblock(device: str) -> str:
    return subprocess.run(["dumpe2fs", "-h", device], check=True, capture_output=True, text=True).stdout


def _spec(*places: str, kind: str = "ext4") -> bytes:
    mounts = [
        {"destination": place, "type": kind, "source": f"qemubox-disk:{number}", "options": ["x"]}
        for number, place in enumerate(places)
    ]
    proc = {"destination": "/proc", "type": "proc", "source": "proc"}
    return json.dumps({"mounts": [proc, *mounts], "linux": {}}).encode()


async def _mounted(volumes: BlockVolumes, spec: bytes, *wanted: BlockVolume) -> Json:
    document: Json = json.loads(await volumes.mount(_NO_UEVENTS, wanted, spec))
    return document


async def test_without_any_the_specification_stays(volumes: BlockVolumes, tmp_path: Path) -> None:
    assert await volumes.mount(_NO_UEVENTS, (), b"not looked at") == b"not looked at"
    assert volumes.writable == ()
    assert volumes.unmount() == []
    assert not (tmp_path / "disks").exists()


async def test_file_systems_are_mounted_and_bound(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str], tmp_path: Path
) -> None:
    at |= {"serial-0": loop("ext4"), "serial-1": loop("ext4")}
    first = _volume("0", "ext4", "nosuid", "rprivate", "data=ordered", "sync")
    spec = await _mounted(volumes, _spec("/a", "/b"), first, _volume("1", "ext4", "ro", "noexec"))
    mounts = spec["mounts"]
    assert isinstance(mounts, list)
    assert mounts[1:] == [
        {
            "destination": "/a",
            "type": "bind",
            "source": f"{tmp_path}/disks/0",
            "options": ["bind", "nosuid", "rprivate"],
        },
        {"destination": "/b", "type": "bind", "source": f"{tmp_path}/disks/1", "options": ["bind", "ro", "noexec"]},
    ]
    (tmp_path / "disks/0/file").write_text("kept")
    with pytest.raises(OSError, match="Read-only file system"):
        (tmp_path / "disks/1/file").write_text("not")
    assert volumes.writable == (f"{tmp_path}/disks/0",)
    shown = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert "sync" in next(words[3] for words in shown if words[1] == f"{tmp_path}/disks/0").split(",")
    assert volumes.unmount() == []
    assert not os.path.ismount(tmp_path / "disks/0")
    state = _superblock(at["serial-0"])
    assert "Filesystem state:         clean" in state
    assert "needs_recovery" not in state


async def test_one_that_has_no_such_file_system(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str]
) -> None:
    at["serial-0"] = loop("nothing")
    with pytest.raises(MountError, match=r"cannot mount the disk for /a as ext4 with noatime: .*there is none in it"):
        await _mounted(volumes, _spec("/a"), _volume("0", "ext4", "noatime"))
    assert volumes.unmount() == []


async def test_one_that_must_be_recovered_is_not_read(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str]
) -> None:
    """Its disk can only be read. To be written it is recovered, as ever."""
    device = loop("ext4")
    at["serial-0"] = device
    _interrupt(device)
    _read_only(device, True)
    with pytest.raises(MountError, match=r"as ext4 with ro: .*must be recovered: mount it once to be written"):
        await _mounted(volumes, _spec("/a"), _volume("0", "ext4", "ro"))
    _read_only(device, False)
    again = BlockVolumes(str(Path(volumes._directory).parent / "again"))
    await _mounted(again, _spec("/a"), _volume("0"))
    assert again.unmount() == []


async def test_an_option_that_its_file_system_does_not_know(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str]
) -> None:
    at["serial-0"] = loop("ext4")
    with pytest.raises(MountError, match=r"with no-such=5: .*no-such"):
        await _mounted(volumes, _spec("/a"), _volume("0", "ext4", "no-such=5"))


async def test_what_was_mounted_before_one_that_fails_is_unmounted(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str], tmp_path: Path
) -> None:
    at |= {"serial-0": loop("ext4"), "serial-1": loop("nothing")}
    with pytest.raises(MountError, match="the disk for /b"):
        await _mounted(volumes, _spec("/a", "/b"), _volume("0"), _volume("1"))
    assert os.path.ismount(tmp_path / "disks/0")
    assert volumes.unmount() == []
    assert not os.path.ismount(tmp_path / "disks/0")


async def test_one_that_cannot_be_unmounted_keeps_none_of_the_others(
    volumes: BlockVolumes,
    at: dict[str, str],
    loop: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was written to those is on their disks then."""
    at |= {"serial-0": loop("ext4"), "serial-1": loop("ext4")}
    await _mounted(volumes, _spec("/a", "/b"), _volume("0"), _volume("1"))

    def unmount_one(target: str) -> bool:
        if target.endswith("/1"):
            raise OSError(errno.EIO, "Input/output error")
        umount(target)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(block_volumes, "unmount_one", unmount_one)
        with pytest.raises(MountError, match=r"cannot unmount .*/disks/1: Input/output error"):
            volumes.unmount()
    assert not os.path.ismount(tmp_path / "disks/0")
    assert os.path.ismount(tmp_path / "disks/1")
    assert volumes.unmount() == []
    assert not os.path.ismount(tmp_path / "disks/1")


async def test_a_raw_disk_is_a_device_node(
    volumes: BlockVolumes, at: dict[str, str], loop: Callable[[str], str]
) -> None:
    at["serial-0"] = loop("nothing")
    number = os.stat(at["serial-0"]).st_rdev
    numbers: Json = {"major": os.major(number), "minor": os.minor(number)}
    volume = _volume("0", "raw", "ro", "mode=640", "uid=5", "gid=6")
    spec = await _mounted(volumes, _spec("/dev/xvda", kind="raw"), volume)
    assert spec["mounts"] == [{"destination": "/proc", "type": "proc", "source": "proc"}]
    assert spec["linux"] == {
        "devices": [{"path": "/dev/xvda", "type": "b", **numbers, "fileMode": 0o640, "uid": 5, "gid": 6}],
        "resources": {"devices": [{"allow": True, "type": "b", **numbers, "access": "rm"}]},
    }
    assert volumes.writable == ()


def test_devices_are_added_to_those_that_are_there() -> None:
    node: Json = {"path": "/dev/x", "type": "b", "major": 1, "minor": 2, "access": "rwm"}
    deny: JsonValue = {"allow": False, "access": "rwm"}
    spec = with_devices({"linux": {"devices": [{"path": "/dev/y"}], "resources": {"devices": [deny]}}}, [node])
    allow: JsonValue = {"allow": True, "type": "b", "major": 1, "minor": 2, "access": "rwm"}
    assert spec == {
        "linux": {
            "devices": [{"path": "/dev/y"}, {"path": "/dev/x", "type": "b", "major": 1, "minor": 2}],
            "resources": {"devices": [deny, allow]},
        }
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), []),
        (("rw", "defaults", "noatime", "rslave"), []),
        (("ro",), [("ro", "")]),
        (("sync", "errors=remount-ro", "discard"), [("sync", ""), ("errors", "remount-ro"), ("discard", "")]),
    ],
)
def test_what_the_file_system_is_told(options: tuple[str, ...], expected: list[tuple[str, str]]) -> None:
    assert parameters("/dev/vdb", _volume("0", "xfs", *options)) == [("source", "/dev/vdb"), *expected]


@pytest.mark.parametrize(
    ("spec", "wanted", "words"),
    [
        (_spec("/a"), [_volume("1")], "names the disk '0', which was not sent"),
        (_spec(), [_volume("0"), _volume("0")], "'0' was sent twice"),
        (_spec(), [_volume("0", "vfat")], "'vfat', which is none of ext4"),
        (b"{", [_volume("0")], "not JSON"),
        (b'{"mounts": [5]}', [_volume("0")], "not an object"),
        (b'{"mounts": 5}', [_volume("0")], "not a list"),
        (_spec("/dev/x"), [_volume("0", "raw", "mode=9")], "the disk for /dev/x: invalid literal"),
    ],
)
async def test_what_makes_no_sense(
    volumes: BlockVolumes, at: dict[str, str], spec: bytes, wanted: list[BlockVolume], words: str
) -> None:
    at |= {"serial-0": "/dev/null", "serial-1": "/dev/null"}
    with pytest.raises(RequestError, match=words):
        await _mounted(volumes, spec, *wanted)
