"""Where a container's changes go, and what becomes of an image that was written to."""

import os
import subprocess
from pathlib import Path

import pytest

from shim.changes.target import Kind, Target
from shim.errors import HostError
from tests.unit.shim.rootfs.host import Host, Mounted, as_seen, bind, contents, erofs_layer


async def test_where_changes_go(host: Host, tmp_path: Path) -> None:
    base, upper = host.snapshot(1, a="x"), host.snapshot(2)
    prepared = await host.prepare(host.overlay(upper, base))
    assert prepared.place is not None
    assert prepared.target == Target(upper, Kind.OVERLAY, True, prepared.disks[-1].extents[0].fd, prepared.place.record)
    prepared.close()
    prepared = await host.prepare(bind(host.snapshot(3, a="here"), "rw", "rbind"))
    assert prepared.target is not None
    assert (prepared.target.kind, prepared.target.mirror) == (Kind.PLAIN, False)
    prepared.close()
    for mount in (bind(base, "ro", "rbind"), bind(_ext4(tmp_path / "whole"), "rw", kind="ext4")):
        prepared = await host.prepare(mount)
        assert (prepared.target, prepared.place) == (None, None)
        prepared.close()


async def test_where_changes_go_beside_an_image_of_the_snapshot_s(host: Host, tmp_path: Path) -> None:
    upper = host.snapshot(2)
    mounts = (
        bind(_ext4(upper.parent / "rwlayer.img"), "rw", "loop", kind="ext4"),
        bind(erofs_layer(host, 1, a="x"), "ro", "loop", kind="erofs"),
        bind(
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
    with as_seen(prepared, tmp_path, mounted) as root:
        assert contents(root) == {"a": "then"}
    with mounted(prepared.disks[-1].extents[0].path, "ext4", "loop,ro") as root:
        assert (root / "written").read_text() == "by the container"
    assert prepared.target is not None
    assert not prepared.target.mirror
    assert prepared.target.taken_up
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
