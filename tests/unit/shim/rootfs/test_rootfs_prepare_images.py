"""Images and file systems that snapshotters have made become disks as they are, or one error that names the file."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from shim.errors import HostError
from shim.rootfs.mounts import FsType
from tests.unit.shim.rootfs.host import Host, Mounted, as_seen, assembled, bind, contents, erofs_layer
from tests.unit.shim.rootfs.superblocks import erofs_image, whole_image


async def test_erofs_block_mode(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    images = [erofs_layer(host, number, a=str(number), **{f"only{number}": "x"}) for number in (1, 2)]
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
        bind(rwlayer, "rw", "loop", kind="ext4"),
        *(bind(image, "ro", "loop", kind="erofs") for image in reversed(images)),
        bind("overlay", *block, kind="format/mkdir/overlay"),
    )
    assert prepared.persistent
    assert [disk.extents[0].path for disk in prepared.disks] == [images[1], images[0], rwlayer]
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "2", "only1": "x", "only2": "x"}
    with pytest.raises(HostError, match="in use by another machine"):
        await host.prepare(bind(rwlayer, "rw", kind="ext4"))
    prepared.close()
    (await host.prepare(bind(rwlayer, "rw", kind="ext4"))).close()
    assert not host.data_dir.exists()


async def test_an_image_that_containerd_left_to_be_made(host: Host, tmp_path: Path) -> None:
    options = ("X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=33554432", "rw", "loop")
    mounts = (
        bind(tmp_path / "rwlayer.img", *options, kind="mkfs/ext4"),
        bind("{{ mount 0 }}/upper", "rw", kind="format/mkdir/bind"),
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
    mount = bind(meta, "ro", "loop", f"device={data}", kind="erofs")
    prepared = await host.prepare(mount)
    (disk,) = prepared.disks
    assert assembled(disk, tmp_path).read_bytes() == meta.read_bytes() + data.read_bytes()
    assert (disk.partitioned, prepared.message.lower[0].partition) == (False, 0)
    prepared.close()
    meta.write_bytes(erofs_image(1, (1, 2), (3, 1)))
    with pytest.raises(HostError, match="an index of 2 other images, and the 1 that it is mounted with"):
        await host.prepare(mount)


async def test_an_index_and_its_tar_in_one_file(host: Host, tmp_path: Path) -> None:
    """As the erofs differ of containerd 2.x makes it with `enable_tar_index`; cut short, it is refused."""
    image = tmp_path / "layer.erofs"
    image.write_bytes(erofs_image(1, (1, 2)) + bytes(8192))
    (await host.prepare(bind(image, "ro", "loop", kind="erofs"))).close()
    os.truncate(image, 8192)
    with pytest.raises(HostError, match=f"{image}: an index of 1 other images, and the 0 that it is mounted with"):
        await host.prepare(bind(image, "ro", "loop", kind="erofs"))


@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
async def test_a_whole_file_system(host: Host, tmp_path: Path, fstype: FsType) -> None:
    (tmp_path / "snap").write_bytes(whole_image(fstype, 1 << 20))
    prepared = await host.prepare(bind(tmp_path / "snap", "rw", "noatime", kind=fstype))
    assert prepared.message.whole
    assert prepared.persistent
    assert (prepared.message.writable.fstype, list(prepared.message.writable.options)) == (fstype, ["noatime"])
    assert not prepared.disks[0].read_only
    prepared.close()
    view = await host.prepare(bind(tmp_path / "snap", "ro", kind=fstype))
    assert [layer.fstype for layer in view.message.lower] == [fstype]
    assert view.disks[0].read_only
    view.close()


@pytest.mark.parametrize("option", ["ro", "rw"])
@pytest.mark.parametrize("fstype", ["ext4", "xfs", "btrfs"])
async def test_a_whole_file_system_that_is_not_whole(host: Host, tmp_path: Path, fstype: FsType, option: str) -> None:
    image = tmp_path / "snap"
    image.write_bytes(whole_image(fstype, 1 << 20)[:-4096])
    with pytest.raises(HostError, match=f"{image}: cut short, its {fstype} file system is of 1048576 bytes"):
        await host.prepare(bind(image, option, kind=fstype))
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(HostError, match=f"{image}: holds no {fstype} file system"):
        await host.prepare(bind(image, option, kind=fstype))


async def test_a_layer_of_the_erofs_snapshotter_that_was_cut_short(host: Host) -> None:
    image = erofs_layer(host, 1, a="x" * 9000)
    os.truncate(image, 4096)
    with pytest.raises(HostError, match=f"{image}: cut short, its erofs file system is of"):
        await host.prepare(bind(image, "ro", "loop", kind="erofs"))


async def test_a_directory_that_is_an_image_mounted_is_that_image(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    """As the erofs snapshotter of containerd 2.1 has its layers."""
    with contextlib.ExitStack() as stack:
        layers = []
        for number in (1, 2):
            image = tmp_path / f"layer {number}.erofs"
            erofs_layer(host, number, a=str(number), **{f"only{number}": "x"}).rename(image)
            layers.append(stack.enter_context(mounted(image)))
        upper = host.snapshot(9)
        prepared = await host.prepare(host.overlay(upper, *reversed(layers)))
        names = [disk.extents[0].path.name for disk in prepared.disks if disk.read_only]
        assert names == ["layer 2.erofs", "layer 1.erofs"]
        with as_seen(prepared, tmp_path, mounted) as root:
            assert contents(root) == {"a": "2", "only1": "x", "only2": "x"}
        prepared.close()
        assert not (host.root / "cache").exists()


async def test_a_directory_that_is_something_else_mounted_is_made_an_image(
    host: Host, tmp_path: Path, mounted: Mounted
) -> None:
    with mounted(Path("tmpfs"), "tmpfs", "rw") as root:
        (root / "a").write_text("on a tmpfs")
        prepared = await host.prepare(bind(root, "ro", "rbind"))
        with as_seen(prepared, tmp_path, mounted) as seen:
            assert contents(seen) == {"a": "on a tmpfs"}
        prepared.close()
