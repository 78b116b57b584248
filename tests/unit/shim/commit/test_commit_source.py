"""Where a snapshot's changes are: for each snapshotter's mounts a place, or why there is none."""

import pytest

from api import containerd_pb2 as api
from api import types_pb2
from shim.commit.source import Comparison, Upper, find, is_ours
from shim.errors import UnsupportedError

_OURS = "io.containerd.qemubox.v1"
_RUNC = "io.containerd.runc.v2"
_ROOT = "/var/lib/containerd/snapshotter/snapshots"


def _mount(kind: str, source: str, *options: str) -> types_pb2.Mount:
    return types_pb2.Mount(type=kind, source=source, options=options)


_OVERLAY = [
    _mount(
        "overlay", "overlay", f"workdir={_ROOT}/3/work", f"upperdir={_ROOT}/3/fs", f"lowerdir={_ROOT}/2/fs:{_ROOT}/1/fs"
    )
]
_BLOCK = [
    _mount(
        "mkfs/ext4", f"{_ROOT}/3/rwlayer.img", "X-containerd.mkfs.fs=ext4", "X-containerd.mkfs.size=1048576", "loop"
    ),
    _mount("erofs", f"{_ROOT}/2/layer.erofs", "ro", "loop"),
    _mount("erofs", f"{_ROOT}/1/layer.erofs", "ro", "loop"),
    _mount(
        "format/mkdir/overlay",
        "overlay",
        "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
        "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
        "workdir={{ mount 0 }}/work",
        "upperdir={{ mount 0 }}/upper",
        "lowerdir={{ overlay 1 2 }}",
    ),
]


def _find(
    mounts: list[types_pb2.Mount],
    *,
    runtime: str = _OURS,
    parent: str = "sha256:chain",
    kind: "api.SnapshotKind" = api.SNAPSHOT_ACTIVE,
) -> Upper | Comparison:
    container = api.Container(
        id="c", snapshotter="snap", snapshot_key="key", runtime=api.Container.Runtime(name=runtime)
    )
    return find(container, api.SnapshotInfo(parent=parent, kind=kind), tuple(mounts))


@pytest.mark.parametrize("runtime", [_OURS, _RUNC])
def test_overlayfs(runtime: str) -> None:
    place = _find(_OVERLAY, runtime=runtime)
    assert isinstance(place, Upper)
    assert (str(place.directory), place.overlay, place.image) == (f"{_ROOT}/3/fs", True, None)


def test_a_snapshot_without_parents_is_all_there_is() -> None:
    place = _find([_mount("bind", f"{_ROOT}/1/fs", "rw", "rbind")], parent="")
    assert isinstance(place, Upper)
    assert (str(place.directory), place.overlay) == (f"{_ROOT}/1/fs", False)


def test_native_is_compared() -> None:
    place = _find([_mount("bind", f"{_ROOT}/3", "rw", "rbind")])
    assert isinstance(place, Comparison)
    assert str(place.directory) == f"{_ROOT}/3"


def test_erofs_in_block_mode_is_ours_alone() -> None:
    place = _find(_BLOCK)
    assert isinstance(place, Upper)
    assert (str(place.directory), place.overlay) == (f"{_ROOT}/3/fs", True)
    assert str(place.image) == f"{_ROOT}/3/rwlayer.img"
    with pytest.raises(UnsupportedError, match=r"rwlayer\.img.*io\.containerd\.runc\.v2"):
        _find(_BLOCK, runtime=_RUNC)


@pytest.mark.parametrize("runtime", [_OURS, _RUNC])
def test_a_file_system_that_containers_have_written_is_not_mounted(runtime: str) -> None:
    with pytest.raises(UnsupportedError, match=r"snapshot key of snap: is a file system of its own \(/dev/mapper/x\)"):
        _find([_mount("ext4", "/dev/mapper/x", "rw")], runtime=runtime)


def test_what_cannot_be_written_has_nothing_to_commit() -> None:
    with pytest.raises(UnsupportedError, match="is read-only"):
        _find(_OVERLAY, kind=api.SNAPSHOT_VIEW)
    with pytest.raises(UnsupportedError, match="is mounted read-only"):
        _find([_mount("overlay", "overlay", f"lowerdir={_ROOT}/2/fs:{_ROOT}/1/fs")])


def test_owners_that_are_not_the_image_s() -> None:
    mapped = [
        _mount(
            "overlay",
            "overlay",
            "uidmap=0:1000:65536",
            "gidmap=0:1000:65536",
            *_OVERLAY[0].options,
        )
    ]
    with pytest.raises(UnsupportedError, match="user namespace"):
        _find(mapped)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (_OURS, True),
        ("/opt/bin/containerd-shim-qemubox-v1", True),
        (_RUNC, False),
        ("/qemubox/containerd-shim-runc-v2", False),
    ],
)
def test_whose_container_it_is(name: str, ours: bool) -> None:
    assert is_ours(api.Container(runtime=api.Container.Runtime(name=name))) == ours
