"""Snapshotters that cannot be used are refused by their names, each with why and what instead."""

from pathlib import Path

import pytest

from shim.errors import UnsupportedError
from shim.rootfs import snapshotters
from shim.rootfs.mounts import Mount, read

SNAPSHOT = "/var/lib/{}/snapshots/7/fs"
INSTEAD = "use the overlayfs or the erofs snapshotter"
AS_ROOT = "run containerd as root, with its overlayfs snapshotter"


def _overlay(place: str, *options: str, kind: str = "overlay") -> Mount:
    return Mount(kind, "overlay", "", (*options, f"lowerdir={place}"))


@pytest.mark.parametrize(
    ("mount", "name", "reason", "hint"),
    [
        (_overlay("/l/1/fs", kind="fuse3.fuse-overlayfs"), "fuse-overlayfs", "rootless containerd", AS_ROOT),
        (_overlay("/l/1/fs", "userxattr"), "overlayfs", "option userxattr", AS_ROOT),
        (Mount("zfs", "tank/containerd/7", "", ()), "zfs", "dataset tank/containerd/7: each snapshot is part", INSTEAD),
        (Mount("btrfs", "/dev/sdb1", "", ("subvolid=263",)), "btrfs", "each snapshot is part of one", INSTEAD),
        (Mount("btrfs", "/dev/sdb1", "", ("subvolid=263", "ro")), "btrfs", "the host has it mounted", INSTEAD),
        (_overlay("/l/1/fs", "extraoption=eyJ9", kind="fuse.nydus-overlayfs"), "nydus", "piece by piece", INSTEAD),
        (_overlay("/l/1/fs", kind="fuse.nydus-overlayfs"), "nydus", "piece by piece", INSTEAD),
        (_overlay("/l/1/fs", "io.katacontainers.volume=eyJ9"), "nydus", "piece by piece", INSTEAD),
        (_overlay("/var/lib/containerd-nydus/snapshots/7/mnt"), "nydus", "snapshots/7/mnt: its layers", INSTEAD),
        (
            _overlay("/var/lib/containerd/io.containerd.snapshotter.v1.overlaybd/snapshots/7/block/mountpoint"),
            "overlaybd",
            "overlaybd-tcmu",
            INSTEAD,
        ),
        (Mount("bind", "/srv/obd/snapshots/7/block/mountpoint", "", ("ro",)), "overlaybd", "overlaybd-tcmu", INSTEAD),
    ],
)
def test_by_what_it_mounts(mount: Mount, name: str, reason: str, hint: str) -> None:
    with pytest.raises(UnsupportedError) as refusal:
        read([mount])
    assert refusal.value.message.startswith(f"the {name} snapshotter cannot be used: ")
    assert reason in refusal.value.message
    assert refusal.value.hint == hint


@pytest.mark.parametrize(
    ("path", "source", "name"),
    [
        (SNAPSHOT.format("containerd-stargz-grpc/snapshotter"), "stargz", "stargz"),
        (SNAPSHOT.format("soci-snapshotter-grpc/snapshotter"), "soci", "soci"),
        (SNAPSHOT.format("soci-snapshotter-grpc/snapshotter"), "rawBridge", "soci"),
        (SNAPSHOT.format("elsewhere"), "rafs", "nydus"),
        (SNAPSHOT.format("elsewhere"), "lazyfs", "lazyfs"),
    ],
)
def test_by_what_is_mounted_at_a_layer(path: str, source: str, name: str) -> None:
    refusal = snapshotters.lazy(Path(path), source)
    assert refusal.message.startswith(f"the {name} snapshotter cannot be used: {path}: ")
    assert refusal.hint == INSTEAD


def test_what_a_lazy_snapshotter_has_unpacked_whole_is_a_layer_as_any_other() -> None:
    """Of an image that is no eStargz, stargz-snapshotter makes the directories that overlayfs makes."""
    place = SNAPSHOT.format("containerd-stargz-grpc/snapshotter")
    assert read([_overlay(place)]).lower[0] == read([Mount("bind", place, "", ("ro", "rbind"))]).lower[0]
