"""Root file systems put together of directories by the real kernel: needs root, leaves no mount."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from vminitd import rootfs
from vminitd.disks import Layer
from vminitd.errors import MountError, RequestError
from vminitd.libc import MNT_DETACH, MS_RDONLY, mount, mount_by_parameters, umount
from vminitd.overlay import mount_overlay, parameters
from vminitd.rootfs import Plan, Rootfs, join, unmount_one
from vminitd.uevent import Uevents

LAYER = Layer("x", 0, "erofs", ())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own, for an upper directory cannot lie on an overlay; all of it is unmounted afterwards."""
    mount("tmpfs", str(tmp_path), "tmpfs", 0, "")
    yield tmp_path
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        target = line.split()[1]
        if target.startswith(str(tmp_path)):
            with suppress(OSError):
                umount(target, MNT_DETACH)


def layers(place: Path, count: int) -> list[str]:
    """Directories with one file of their own each, and "which", in which the topmost must win."""
    made = []
    for number in range(count):
        directory = place / "mnt" / str(number)
        directory.mkdir(parents=True)
        (directory / f"file{number}").write_text(str(number))
        (directory / "which").write_text(str(number))
        made.append(str(directory))
    return made


@pytest.fixture
def target(place: Path) -> str:
    (place / "rootfs").mkdir()
    return str(place / "rootfs")


def test_parameters_are_given_topmost_first() -> None:
    assert parameters(["/a", "/b:c"], "/u", "/w") == [
        ("source", "overlay"),
        ("lowerdir+", "/a"),
        ("lowerdir+", "/b:c"),
        ("upperdir", "/u"),
        ("workdir", "/w"),
        ("index", "off"),
        ("redirect_dir", "off"),
        ("metacopy", "off"),
    ]
    assert parameters(["/a", "/b"], "", "") == [("source", "overlay"), ("lowerdir+", "/a"), ("lowerdir+", "/b")]


@pytest.mark.parametrize("count", [1, 2, 130])
def test_layers_under_a_writable_one(place: Path, target: str, count: int) -> None:
    lower, writable = layers(place, count), place / "mnt/rw"
    writable.mkdir()
    os.chmod(lower[0], 0o1750)
    os.chown(lower[0], 5, 6)
    join(target, lower, str(writable), whole=False)
    assert (Path(target) / "which").read_text() == "0"
    assert (Path(target) / f"file{count - 1}").read_text() == str(count - 1)
    (Path(target) / "new").write_text("x")
    (Path(target) / "file0").unlink()
    assert (writable / "upper/new").read_text() == "x"
    assert os.stat(writable / "upper/file0").st_rdev == 0  # a whiteout
    status = os.stat(target)
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o1750, 5, 6)
    assert unmount_one(target) is False


@pytest.mark.parametrize("count", [2, 130])
def test_layers_alone_are_read_only(place: Path, target: str, count: int) -> None:
    join(target, layers(place, count), "", whole=False)
    assert (Path(target) / "which").read_text() == "0"
    with pytest.raises(OSError, match="Read-only file system"):
        (Path(target) / "new").write_text("x")
    unmount_one(target)


def test_one_layer_alone_is_the_root(place: Path, target: str) -> None:
    (lower,) = layers(place, 1)
    mount("tmpfs", lower, "tmpfs", MS_RDONLY, "")
    join(target, [lower], "", whole=False)
    with pytest.raises(OSError, match="Read-only file system"):
        (Path(target) / "new").write_text("x")
    unmount_one(target)
    unmount_one(lower)


@pytest.mark.parametrize(("whole", "where"), [(True, "new"), (False, "upper/new")])
def test_a_writable_layer_alone(place: Path, target: str, whole: bool, where: str) -> None:
    writable = place / "mnt/rw"
    writable.mkdir(parents=True)
    join(target, [], str(writable), whole=whole)
    (Path(target) / "new").write_text("x")
    assert (writable / where).read_text() == "x"
    unmount_one(target)


def test_an_upper_directory_that_is_there_stays_as_it_is(place: Path, target: str) -> None:
    lower, writable = layers(place, 1), place / "mnt/rw"
    (writable / "upper").mkdir(parents=True, mode=0o711)
    (writable / "upper/kept").write_text("x")
    join(target, lower, str(writable), whole=False)
    assert (Path(target) / "kept").read_text() == "x"
    assert os.stat(target).st_mode & 0o777 == 0o711
    unmount_one(target)


def test_the_kernel_s_own_explanation_is_in_the_error(target: str) -> None:
    with pytest.raises(OSError, match="overlay: Unknown parameter 'nonsense'"):
        mount_by_parameters("overlay", target, [("lowerdir+", target), ("nonsense", "1")])


def test_an_overlay_that_cannot_be_made_is_an_error(place: Path, target: str) -> None:
    with pytest.raises(MountError, match="cannot put 1 layers together: Invalid argument"):
        mount_overlay(target, layers(place, 1), str(place), "/proc")


def test_what_is_in_use_is_detached_and_reported(place: Path, target: str) -> None:
    join(target, layers(place, 2), "", whole=False)
    held = os.open(f"{target}/which", os.O_RDONLY)
    assert unmount_one(target) is True
    assert os.listdir(target) == []
    os.close(held)


def test_what_is_not_mounted_is_an_error(target: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        unmount_one(target)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan((), None, whole=False), "no layer at all"),
        (Plan((LAYER,), LAYER, whole=True), "exactly one writable layer"),
        (Plan((), None, whole=True), "no layer at all"),
        (Plan((LAYER,), None, whole=True), "exactly one writable layer"),
    ],
)
def test_plans_that_make_no_sense(plan: Plan, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        plan.check()


async def test_at_the_machines_end_read_only_layers_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on them waits to be written, and unmounting a hundred takes longer than the rest of the end."""

    async def devices(_uevents: object, layers: Sequence[Layer]) -> list[str]:
        return ["tmpfs" for _ in layers]

    monkeypatch.setattr(rootfs, "devices_of", devices)
    monkeypatch.setattr(rootfs, "mount_layer", lambda _layer, device, target: mount(device, target, "tmpfs", 0, ""))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    uevents = Uevents(ours)
    container = Rootfs(str(place / "c"))
    try:
        await container.mount(uevents, Plan((LAYER, LAYER, LAYER), Layer("rw", 0, "ext4", ()), whole=False))
    finally:
        uevents.close()
        theirs.close()
    assert container.unmount(layers=False) == []
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert [path for path in mounted if path.startswith(f"{place}/")] == [f"{place}/c/mnt/{i}" for i in range(3)]
    assert container.unmount() == []
    assert os.listdir(place / "c" / "mnt") == []
