"""From mounts to disks, looked at as the guest would: mount each disk, then the overlay of them."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from api import guest_pb2, types_pb2
from shim.changes.target import Kind, Target
from shim.errors import HostError, QemuboxError, ResourceError, SpecError, UnsupportedError
from shim.journal import Journal
from shim.rootfs.cache import LayerCache
from shim.rootfs.mounts import FsType
from shim.rootfs.plan import Disk
from shim.rootfs.prepare import PreparedRootfs, prepare
from tests.unit.shim.rootfs.superblocks import erofs_image, whole_image


class Mounted(Protocol):
    """The fixture of that name, in conftest.py."""

    def __call__(self, source: Path, fstype: str = ..., options: str = ...) -> AbstractContextManager[Path]: ...


Describe = Callable[[Path], dict[bytes, tuple[object, ...]]]


class Host:
    """The host's directories, and the shortest ways to use them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data" / "0123456789abcdef01234567"
        self.places = root / "data" / "writable"
        self.journal = Journal(root)

    def snapshot(self, number: int, **files: str) -> Path:
        """A snapshot's directory with these files."""
        path = self.root / "snapshots" / str(number) / "fs"
        path.mkdir(parents=True)
        for name, content in files.items():
            (path / name).write_text(content)
        return path

    def overlay(self, upper: Path, *lower: Path) -> types_pb2.Mount:
        """An active snapshot as the overlayfs snapshotter mounts it."""
        options = [f"workdir={upper.parent}/work", f"upperdir={upper}", f"lowerdir={':'.join(map(str, lower))}"]
        return types_pb2.Mount(type="overlay", source="overlay", options=options)

    async def prepare(self, *mounts: types_pb2.Mount, mkfs_erofs: str = "mkfs.erofs") -> PreparedRootfs:
        """As Create does it."""
        return await prepare(
            mounts,
            cache=LayerCache(self.root / "cache", limit_mib=100, mkfs_erofs=mkfs_erofs, deadline_s=30),
            data_dir=self.data_dir,
            places=self.places,
            ready_made=self.root / "empty",
            writable_size_mib=64,
            journal=self.journal,
            mkfs_ext4="mkfs.ext4",
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def _bind(source: Path | str, *options: str, kind: str = "bind") -> types_pb2.Mount:
    return types_pb2.Mount(type=kind, source=str(source), options=options)


@contextlib.contextmanager
def _seen(prepared: PreparedRootfs, work: Path, mounted: Mounted) -> Iterator[Path]:
    """The read-only part of the root as the guest sees it."""
    with contextlib.ExitStack() as stack:
        disks = {disk.serial: _assembled(disk, work) for disk in prepared.disks}
        points = [stack.enter_context(_mount(layer, disks[layer.serial], mounted)) for layer in prepared.message.lower]
        (work / "nothing").mkdir(exist_ok=True)
        lower = ":".join(map(str, [*points, work / "nothing"]))
        yield stack.enter_context(mounted(Path("overlay"), "overlay", f"ro,lowerdir={lower}"))


def _mount(layer: guest_pb2.Layer, disk: Path, mounted: Mounted) -> AbstractContextManager[Path]:
    options = "loop,ro"
    if layer.partition:
        words = ["partx", "--raw", "--noheadings", "--bytes", "--output", "START,SIZE", "--nr", str(layer.partition)]
        shown = subprocess.run([*words, disk], check=True, capture_output=True, text=True).stdout.split()
        options += f",offset={int(shown[0]) * 512},sizelimit={shown[1]}"
    return mounted(disk, layer.fstype, options)


def _assembled(disk: Disk, work: Path) -> Path:
    path = work / f"disk-{disk.serial}"
    with path.open("wb") as file:
        for extent in disk.extents:
            content = os.pread(extent.fd, extent.size + 1, 0) if disk.read_only else b""
            assert len(content) == extent.size or not disk.read_only
            file.write(content)
    return path


def _content(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}


async def test_layers_and_a_writable_one(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    base, top = host.snapshot(1, a="base", b="base"), host.snapshot(2, b="top")
    prepared = await host.prepare(host.overlay(host.snapshot(3), top, base))
    assert [(disk.read_only, disk.partitioned, len(disk.extents)) for disk in prepared.disks] == [
        (True, False, 1),
        (True, False, 1),
        (False, False, 1),
    ]
    assert [disk.serial for disk in prepared.disks] == [
        *(layer.serial for layer in prepared.message.lower),
        prepared.message.writable.serial,
    ]
    assert prepared.message.writable.fstype == "ext4"
    assert not prepared.message.whole
    assert not prepared.persistent
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "base", "b": "top"}
    prepared.close()


async def test_the_writable_file_is_empty_sized_and_in_the_journal(host: Host, mounted: Mounted) -> None:
    prepared = await host.prepare(host.overlay(host.snapshot(2), host.snapshot(1, a="x")))
    (extent,) = prepared.disks[-1].extents
    (place,) = host.places.iterdir()
    assert extent.path == place / "unused.ext4"
    assert extent.size == 64 << 20
    assert os.get_inheritable(extent.fd) is False
    assert {"kind": "writable", "path": str(place), "pid": os.getpid()} in host.journal.entries()
    assert place.stat().st_mode & 0o777 == 0o700
    assert not host.data_dir.exists()
    with mounted(extent.path, "ext4", "loop,ro,noload") as root:
        assert os.listdir(root) == ["lost+found"]
    prepared.close()
    assert list(host.places.iterdir()) == []


async def test_what_the_upper_directory_has_already_is_the_topmost_layer(
    host: Host, tmp_path: Path, mounted: Mounted, describe: Describe
) -> None:
    base, upper = host.snapshot(1, a="base", gone="base", b="base"), host.snapshot(2, b="written before")
    os.mknod(upper / "gone", 0o20000, os.makedev(0, 0))
    prepared = await host.prepare(host.overlay(upper, base))
    assert len(prepared.message.lower) == 2
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "base", "b": "written before"}
    on_the_host = mounted(Path("overlay"), "overlay", f"ro,lowerdir={upper}:{base}")
    with on_the_host as original, _seen(prepared, tmp_path, mounted) as root:
        assert describe(root) == describe(original)
    (place,) = host.places.iterdir()
    assert sorted(os.listdir(place)) == ["facts.json", "unused.ext4", "upper.erofs"]
    prepared.close()
    assert len(os.listdir(host.root / "cache" / "blobs")) == 1


async def test_a_second_start_sees_what_has_come_back(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    base, upper = host.snapshot(1), host.snapshot(2, a="first")
    (await host.prepare(host.overlay(upper, base))).close()
    (upper / "a").write_text("second")
    prepared = await host.prepare(host.overlay(upper, base))
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "second"}
    assert prepared.disks[-1].extents[0].size == 64 << 20
    prepared.close()


async def test_a_hundred_layers_share_one_disk(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    lower = [host.snapshot(number, **{f"file{number}": str(number), "last": str(number)}) for number in range(100)]
    prepared = await host.prepare(host.overlay(host.snapshot(100), *reversed(lower)))
    joined, _ = prepared.disks
    assert joined.partitioned
    assert len(joined.extents) == 102
    assert [layer.partition for layer in prepared.message.lower] == list(range(1, 101))
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {f"file{number}": str(number) for number in range(100)} | {"last": "99"}
    prepared.close()


async def test_more_than_a_table_holds_are_several_disks(host: Host) -> None:
    lower = [host.snapshot(number, same="same") for number in range(130)]
    prepared = await host.prepare(host.overlay(host.snapshot(200), *lower))
    assert [len(disk.extents) for disk in prepared.disks] == [130, 4, 1]
    assert [layer.partition for layer in prepared.message.lower] == [*range(1, 129), 1, 2]
    assert len({disk.serial for disk in prepared.disks}) == 3
    prepared.close()


async def test_an_empty_snapshot_without_parents(host: Host) -> None:
    prepared = await host.prepare(_bind(host.snapshot(1), "rw", "rbind"))
    assert len(prepared.disks) == 1
    assert not prepared.message.lower
    assert prepared.message.HasField("writable")
    prepared.close()


async def test_a_snapshot_without_parents_that_has_files(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    prepared = await host.prepare(_bind(host.snapshot(1, a="here"), "rw", "rbind"))
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "here"}
    assert not (host.root / "cache" / "blobs").exists()
    prepared.close()


async def test_a_read_only_view_needs_no_data_directory(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    prepared = await host.prepare(_bind(host.snapshot(1, a="here"), "ro", "rbind"))
    assert not prepared.message.HasField("writable")
    assert all(disk.read_only for disk in prepared.disks)
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "here"}
    assert not host.data_dir.exists()
    assert host.journal.entries() == []
    prepared.close()


async def test_a_directory_that_may_change_is_read_at_every_start(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    (tmp_path / "root").mkdir()
    for content in ("one", "two"):
        (tmp_path / "root" / "a").write_text(content)
        prepared = await host.prepare(_bind(tmp_path / "root", "ro", "rbind"))
        with _seen(prepared, tmp_path, mounted) as root:
            assert _content(root) == {"a": content}
        prepared.close()


async def test_erofs_block_mode(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    images = [_image(host, number, a=str(number), **{f"only{number}": "x"}) for number in (1, 2)]
    rwlayer = tmp_path / "rwlayer.img"
    rwlayer.touch()
    os.truncate(rwlayer, 32 << 20)
    subprocess.run(["mkfs.ext4", "-q", rwlayer], check=True)  # noqa: ASYNC221
    block = [
        "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
        "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
        "workdir={{ mount 0 }}/work",
        "upperdir={{ mount 0 }}/upper",
        "lowerdir={{ overlay 1 2 }}",
    ]
    prepared = await host.prepare(
        _bind(rwlayer, "rw", "loop", kind="ext4"),
        *(_bind(image, "ro", "loop", kind="erofs") for image in reversed(images)),
        _bind("overlay", *block, kind="format/mkdir/overlay"),
    )
    assert prepared.persistent
    assert [disk.extents[0].path for disk in prepared.disks] == [images[1], images[0], rwlayer]
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "2", "only1": "x", "only2": "x"}
    with pytest.raises(HostError, match="in use by another machine"):
        await host.prepare(_bind(rwlayer, "rw", kind="ext4"))
    prepared.close()
    (await host.prepare(_bind(rwlayer, "rw", kind="ext4"))).close()
    assert not host.data_dir.exists()


def _image(host: Host, number: int, **files: str) -> Path:
    path = host.root / f"layer{number}.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", path, host.snapshot(number, **files)], check=True)
    return path


async def test_an_image_that_containerd_left_to_be_made(host: Host, tmp_path: Path) -> None:
    options = ("X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=33554432", "rw", "loop")
    mounts = (
        _bind(tmp_path / "rwlayer.img", *options, kind="mkfs/ext4"),
        _bind("{{ mount 0 }}/upper", "rw", kind="format/mkdir/bind"),
    )
    prepared = await host.prepare(*mounts)
    assert prepared.disks[0].extents[0].size == 33554432
    assert prepared.persistent
    inode = (tmp_path / "rwlayer.img").stat().st_ino
    prepared.close()
    (await host.prepare(*mounts)).close()
    assert (tmp_path / "rwlayer.img").stat().st_ino == inode


async def test_merged_metadata_and_its_data_are_one_disk(host: Host, tmp_path: Path) -> None:
    meta, data = tmp_path / "fsmeta.erofs", tmp_path / "layer.erofs"
    data.write_bytes(erofs_image(2))
    meta.write_bytes(erofs_image(1, (1, 2)))
    mount = _bind(meta, "ro", "loop", f"device={data}", kind="erofs")
    prepared = await host.prepare(mount)
    (disk,) = prepared.disks
    assert _assembled(disk, tmp_path).read_bytes() == meta.read_bytes() + data.read_bytes()
    assert (disk.partitioned, prepared.message.lower[0].partition) == (False, 0)
    prepared.close()
    meta.write_bytes(erofs_image(1, (1, 2), (3, 1)))
    with pytest.raises(HostError, match="an index of 2 other images, and the 1 that it is mounted with"):
        await host.prepare(mount)


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
async def test_a_whole_file_system(host: Host, tmp_path: Path, fstype: FsType) -> None:
    (tmp_path / "snap").write_bytes(whole_image(fstype, 1 << 20))
    prepared = await host.prepare(_bind(tmp_path / "snap", "rw", "noatime", kind=fstype))
    assert prepared.message.whole
    assert prepared.persistent
    assert (prepared.message.writable.fstype, list(prepared.message.writable.options)) == (fstype, ["noatime"])
    assert not prepared.disks[0].read_only
    prepared.close()
    view = await host.prepare(_bind(tmp_path / "snap", "ro", kind=fstype))
    assert [layer.fstype for layer in view.message.lower] == [fstype]
    assert view.disks[0].read_only
    view.close()


@pytest.mark.parametrize("option", ["ro", "rw"])
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
async def test_a_whole_file_system_that_is_not_whole(host: Host, tmp_path: Path, fstype: FsType, option: str) -> None:
    image = tmp_path / "snap"
    image.write_bytes(whole_image(fstype, 1 << 20)[:-4096])
    with pytest.raises(HostError, match=f"{image}: cut short, its {fstype} file system is of 1048576 bytes"):
        await host.prepare(_bind(image, option, kind=fstype))
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(HostError, match=f"{image}: holds no {fstype} file system"):
        await host.prepare(_bind(image, option, kind=fstype))


async def test_a_layer_of_the_erofs_snapshotter_that_was_cut_short(host: Host) -> None:
    image = _image(host, 1, a="x" * 9000)
    os.truncate(image, 4096)
    with pytest.raises(HostError, match=f"{image}: cut short, its erofs file system is of"):
        await host.prepare(_bind(image, "ro", "loop", kind="erofs"))


async def test_a_directory_that_is_an_image_mounted_is_that_image(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    """As the erofs snapshotter of containerd 2.1 has its layers."""
    with contextlib.ExitStack() as stack:
        layers = []
        for number in (1, 2):
            image = tmp_path / f"layer {number}.erofs"
            _image(host, number, a=str(number), **{f"only{number}": "x"}).rename(image)
            layers.append(stack.enter_context(mounted(image)))
        upper = host.snapshot(9)
        prepared = await host.prepare(host.overlay(upper, *reversed(layers)))
        assert [disk.extents[0].path.name for disk in prepared.disks] == [
            "layer 2.erofs",
            "layer 1.erofs",
            "writable.ext4",
        ]
        with _seen(prepared, tmp_path, mounted) as root:
            assert _content(root) == {"a": "2", "only1": "x", "only2": "x"}
        prepared.close()
        assert not (host.root / "cache").exists()


async def test_a_directory_that_is_something_else_mounted_is_made_an_image(
    host: Host, tmp_path: Path, mounted: Mounted
) -> None:
    with mounted(Path("tmpfs"), "tmpfs", "rw") as root:
        (root / "a").write_text("on a tmpfs")
        prepared = await host.prepare(_bind(root, "ro", "rbind"))
        with _seen(prepared, tmp_path, mounted) as seen:
            assert _content(seen) == {"a": "on a tmpfs"}
        prepared.close()


async def test_serial_numbers_differ_between_containers(host: Host) -> None:
    base = host.snapshot(1, a="x")
    first = await host.prepare(host.overlay(host.snapshot(2), base))
    host.data_dir = host.root / "data" / "another"
    second = await host.prepare(host.overlay(host.snapshot(3), base))
    assert not {disk.serial for disk in first.disks} & {disk.serial for disk in second.disks}
    first.close()
    second.close()


async def test_an_image_in_use_stays_in_the_cache_until_closed(host: Host) -> None:
    prepared = await host.prepare(host.overlay(host.snapshot(2), host.snapshot(1, a="x")))
    path = prepared.disks[0].extents[0].path
    cache = LayerCache(host.root / "cache", limit_mib=0, mkfs_erofs="mkfs.erofs", deadline_s=30)
    (await cache.ensure(host.snapshot(3, b="y"))).close()
    assert path.exists()
    prepared.close()
    (await cache.ensure(host.snapshot(4, c="z"))).close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("kind", "source", "options", "error", "words"),
    [
        ("virtiofs", "tag", [], UnsupportedError, "mount of type virtiofs, source tag"),
        ("bind", "{root}/nowhere", ["rw"], HostError, "snapshot {root}/nowhere: No such file or directory"),
        ("bind", "{root}/snapshots/9/fs", ["ro"], HostError, "layer {root}/snapshots/9/fs: No such file or directory"),
        ("erofs", "{root}/nowhere", ["ro"], HostError, "{root}/nowhere: No such file or directory"),
        ("erofs", "{root}/odd", ["ro"], UnsupportedError, "{root}/odd: 513 bytes, which is no whole number of 512"),
        ("erofs", "{root}/zeros", ["ro"], HostError, "{root}/zeros: holds no erofs file system"),
        ("erofs", "{root}/empty", ["ro"], UnsupportedError, "{root}/empty: 0 bytes"),
        ("ext4", "{root}/nowhere", ["rw"], HostError, "{root}/nowhere: No such file or directory"),
        ("mkfs/ext4", "{root}/big", ["rw", "X-containerd.mkfs.size=8E18"], SpecError, "size=8E18 is no size"),
        ("mkfs/ext4", "{root}/big", ["rw", "X-containerd.mkfs.size=4096P"], ResourceError, "big: File too large"),
    ],
)
async def test_what_cannot_be_prepared_leaves_nothing_open(
    host: Host, kind: str, source: str, options: list[str], error: type[QemuboxError], words: str
) -> None:
    (host.root / "odd").write_bytes(bytes(513))
    (host.root / "empty").touch()
    (host.root / "zeros").write_bytes(bytes(4096))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(error) as failure:
        await host.prepare(_bind(source.format(root=host.root), *options, kind=kind))
    assert words.format(root=host.root) in failure.value.message
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_one_failed_layer_closes_the_others(host: Host) -> None:
    good = host.snapshot(1, a="x")
    (await host.prepare(_bind(good, "ro"))).close()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(HostError, match="false could not make an image"):
        await host.prepare(host.overlay(host.snapshot(3), good, host.snapshot(2, b="y")), mkfs_erofs="false")
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_a_full_disk(host: Host, small_disk: Path) -> None:
    host.places = small_disk / "writable"
    base, upper = host.snapshot(1), host.snapshot(2)
    (upper / "large").write_bytes(os.urandom(2 << 20))
    with pytest.raises(ResourceError, match=f"{small_disk}/writable/.*(No space left|upper)|no room"):
        await host.prepare(host.overlay(upper, base))
    assert os.listdir(host.places) == []
    (entry,) = [entry for entry in host.journal.entries() if entry["kind"] == "writable"]
    assert Path(str(entry["path"])).parent == host.places


async def test_closing_closes_all_and_may_be_repeated(host: Host) -> None:
    before = os.listdir("/proc/self/fd")
    lower = [host.snapshot(number, a=str(number)) for number in range(6)]
    prepared = await host.prepare(host.overlay(host.snapshot(9), *lower))
    prepared.close()
    prepared.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_where_changes_go(host: Host, tmp_path: Path) -> None:
    base, upper = host.snapshot(1, a="x"), host.snapshot(2)
    prepared = await host.prepare(host.overlay(upper, base))
    assert prepared.place is not None
    assert prepared.target == Target(upper, Kind.OVERLAY, True, prepared.disks[-1].extents[0].fd, prepared.place.record)
    prepared.close()
    prepared = await host.prepare(_bind(host.snapshot(3, a="here"), "rw", "rbind"))
    assert prepared.target is not None
    assert (prepared.target.kind, prepared.target.mirror) == (Kind.PLAIN, False)
    prepared.close()
    for mount in (_bind(base, "ro", "rbind"), _bind(_ext4(tmp_path / "whole"), "rw", kind="ext4")):
        prepared = await host.prepare(mount)
        assert (prepared.target, prepared.place) == (None, None)
        prepared.close()


async def test_where_changes_go_beside_an_image_of_the_snapshot_s(host: Host, tmp_path: Path) -> None:
    upper = host.snapshot(2)
    mounts = (
        _bind(_ext4(upper.parent / "rwlayer.img"), "rw", "loop", kind="ext4"),
        _bind(_image(host, 1, a="x"), "ro", "loop", kind="erofs"),
        _bind(
            "overlay",
            *("workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper", "lowerdir={{ mount 1 }}"),
            kind="format/mkdir/overlay",
        ),
    )
    prepared = await host.prepare(*mounts)
    (image,) = prepared.disks[-1].extents
    assert prepared.target == Target(upper, Kind.OVERLAY, True, image.fd, host.data_dir / "record")
    assert prepared.persistent
    assert {"kind": "path", "path": str(host.data_dir)} in host.journal.entries()
    prepared.close()
    upper.rmdir()
    prepared = await host.prepare(*mounts)
    assert prepared.target is None
    prepared.close()


def _ext4(path: Path) -> Path:
    path.touch()
    os.truncate(path, 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


async def test_an_image_that_was_written_to_is_taken_up_upon_the_layers_of_then(
    host: Host, tmp_path: Path, mounted: Mounted
) -> None:
    base, upper = host.snapshot(1), host.snapshot(2, a="then")
    prepared = await host.prepare(host.overlay(upper, base))
    assert prepared.place is not None
    prepared.place.begin()
    assert prepared.persistent
    with mounted(prepared.place.image.with_name("writable.ext4"), "ext4", "loop") as root:
        (root / "written").write_text("by the container")
    prepared.close()
    (upper / "a").write_text("what a pause brought back")
    prepared = await host.prepare(host.overlay(upper, base))
    with _seen(prepared, tmp_path, mounted) as root:
        assert _content(root) == {"a": "then"}
    with mounted(prepared.disks[-1].extents[0].path, "ext4", "loop,ro") as root:
        assert (root / "written").read_text() == "by the container"
    assert prepared.target is not None
    assert not prepared.target.mirror
    prepared.close()
    assert len(list(host.places.iterdir())) == 1


async def test_a_snapshot_s_image_is_one_machine_s(host: Host) -> None:
    mount = host.overlay(host.snapshot(2), host.snapshot(1, a="x"))
    prepared = await host.prepare(mount)
    with pytest.raises(HostError, match=r"in use by another machine .*end the container that uses this snapshot"):
        await host.prepare(mount)
    prepared.close()
    (await host.prepare(mount)).close()


async def test_an_image_of_a_machine_that_outlives_its_shim_is_not_taken(host: Host) -> None:
    mount = host.overlay(host.snapshot(2), host.snapshot(1, a="x"))
    prepared = await host.prepare(mount)
    assert prepared.place is not None
    prepared.place.begin()
    machine = os.dup(prepared.disks[-1].extents[0].fd)
    prepared.close()
    with pytest.raises(HostError, match=r"writable\.ext4: in use by another machine"):
        await host.prepare(mount)
    os.close(machine)
    (await host.prepare(mount)).close()
