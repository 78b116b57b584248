"""From mounts to disks, looked at as the guest would: mount each disk, then the overlay of them."""

import os
from pathlib import Path

import pytest

from shim.errors import HostError, QemuboxError, ResourceError, SpecError, UnsupportedError
from shim.rootfs.cache import LayerCache
from tests.unit.shim.rootfs.host import Describe, Host, Mounted, as_seen, bind, contents


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
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "base", "b": "top"}
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
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "base", "b": "written before"}
    on_the_host = mounted(Path("overlay"), "overlay", f"ro,lowerdir={upper}:{base}")
    with on_the_host as original, as_seen(prepared, tmp_path, mounted) as root:
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
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "second"}
    assert prepared.disks[-1].extents[0].size == 64 << 20
    prepared.close()


async def test_a_hundred_layers_share_one_disk(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    lower = [host.snapshot(number, **{f"file{number}": str(number), "last": str(number)}) for number in range(100)]
    prepared = await host.prepare(host.overlay(host.snapshot(100), *reversed(lower)))
    joined, _ = prepared.disks
    assert joined.partitioned
    assert len(joined.extents) == 102
    assert [layer.partition for layer in prepared.message.lower] == list(range(1, 101))
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {f"file{number}": str(number) for number in range(100)} | {"last": "99"}
    prepared.close()


async def test_more_than_a_table_holds_are_several_disks(host: Host) -> None:
    lower = [host.snapshot(number, same="same") for number in range(130)]
    prepared = await host.prepare(host.overlay(host.snapshot(200), *lower))
    assert [len(disk.extents) for disk in prepared.disks] == [130, 4, 1]
    assert [layer.partition for layer in prepared.message.lower] == [*range(1, 129), 1, 2]
    assert len({disk.serial for disk in prepared.disks}) == 3
    prepared.close()


async def test_an_empty_snapshot_without_parents(host: Host) -> None:
    prepared = await host.prepare(bind(host.snapshot(1), "rw", "rbind"))
    assert len(prepared.disks) == 1
    assert not prepared.message.lower
    assert prepared.message.HasField("writable")
    prepared.close()


async def test_a_snapshot_without_parents_that_has_files(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    prepared = await host.prepare(bind(host.snapshot(1, a="here"), "rw", "rbind"))
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "here"}
    assert not (host.root / "cache" / "blobs").exists()
    prepared.close()


async def test_a_read_only_view_needs_no_data_directory(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    prepared = await host.prepare(bind(host.snapshot(1, a="here"), "ro", "rbind"))
    assert not prepared.message.HasField("writable")
    assert all(disk.read_only for disk in prepared.disks)
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "here"}
    assert not host.data_dir.exists()
    assert host.journal.entries() == []
    prepared.close()


async def test_a_directory_that_may_change_is_read_at_every_start(host: Host, tmp_path: Path, mounted: Mounted) -> None:
    (tmp_path / "root").mkdir()
    for content in ("one", "two"):
        (tmp_path / "root" / "a").write_text(content)
        prepared = await host.prepare(bind(tmp_path / "root", "ro", "rbind"))
        with as_seen(prepared, tmp_path, mounted) as root:
            assert contents(root) == {"a": content}
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
        await host.prepare(bind(source.format(root=host.root), *options, kind=kind))
    assert words.format(root=host.root) in failure.value.message
    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_one_failed_layer_closes_the_others(host: Host) -> None:
    good = host.snapshot(1, a="x")
    (await host.prepare(bind(good, "ro"))).close()
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
    entry = next(entry for entry in host.journal.entries() if entry["kind"] == "writable")
    assert Path(str(entry["path"])).parent == host.places


async def test_closing_closes_all_and_may_be_repeated(host: Host) -> None:
    before = os.listdir("/proc/self/fd")
    lower = [host.snapshot(number, a=str(number)) for number in range(6)]
    prepared = await host.prepare(host.overlay(host.snapshot(9), *lower))
    prepared.close()
    prepared.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
