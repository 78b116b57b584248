"""What is mounted at a layer's directory, as the kernel tells it."""

import os
from pathlib import Path

import pytest

from shim.errors import HostError, UnsupportedError
from shim.rootfs import mounted
from shim.rootfs.mounted import Mounted, read_mounts, with_images
from shim.rootfs.mounts import Directory, Plan
from tests.unit.shim.rootfs.superblocks import erofs_image

LINE = "36 35 98:0 {root} {point} rw,noatime master:1 - {fstype} {source} ro,user_xattr"


def _line(point: str, fstype: str, source: str, root: str = "/") -> str:
    return LINE.format(root=root, point=point, fstype=fstype, source=source)


def test_the_kernels_table() -> None:
    lines = [
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        _line("/a\\040b", "erofs", "/lib/layer\\134.erofs"),
        "40 22 0:38 / /c ro - fuse.rawBridge stargz rw,user_id=0",
        _line("/c", "erofs", "/dev/loop3", root="/sub"),
    ]
    assert read_mounts(lines) == {
        "/": Mounted("/", "ext4", "/dev/sda1"),
        "/a b": Mounted("/", "erofs", "/lib/layer\\.erofs"),
        "/c": Mounted("/sub", "erofs", "/dev/loop3"),
    }


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A layer's directory, on which something is mounted as far as the table says; loop devices are in `block`."""
    monkeypatch.setattr(mounted, "_MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(mounted, "_SYS_BLOCK", tmp_path / "block")
    monkeypatch.setattr(mounted, "_is_mounted", lambda path: path == tmp_path / "fs")
    (tmp_path / "layer.erofs").write_bytes(erofs_image(1))
    return tmp_path / "fs"


def _found(layer: Path, fstype: str, source: str, root: str = "/") -> Path | None:
    """The image that takes the layer's place."""
    (layer.parent / "mountinfo").write_text(_line(str(layer), fstype, source, root) + "\n")
    (lower,) = with_images(Plan((Directory(layer, committed=True),), None, None)).lower
    return None if isinstance(lower, Directory) else lower.files[0]


def _loop(layer: Path, file: str, offset: int) -> None:
    loop = layer.parent / "block" / "loop3" / "loop"
    loop.mkdir(parents=True, exist_ok=True)
    (loop / "backing_file").write_text(f"{file}\n")
    (loop / "offset").write_text(f"{offset}\n")


def test_a_file_that_is_mounted_as_it_is(layer: Path) -> None:
    image = layer.parent / "layer.erofs"
    assert _found(layer, "erofs", str(image)) == image
    assert _found(layer, "erofs", str(image), root="/etc") is None
    assert _found(layer, "ext4", str(image)) is None
    assert _found(layer, "erofs", str(layer.parent / "gone")) is None


def test_a_file_that_is_mounted_by_a_loop_device(layer: Path) -> None:
    image = layer.parent / "layer.erofs"
    _loop(layer, str(image), 0)
    assert _found(layer, "erofs", "/dev/loop3") == image
    _loop(layer, str(image), 4096)
    assert _found(layer, "erofs", "/dev/loop3") is None
    _loop(layer, f"{image} (deleted)", 0)
    assert _found(layer, "erofs", "/dev/loop3") is None
    assert _found(layer, "erofs", "/dev/sda") is None


def test_an_index_of_other_images_does_not_say_which(layer: Path) -> None:
    image = layer.parent / "layer.erofs"
    image.write_bytes(erofs_image(1, (1, 4)))
    assert _found(layer, "erofs", str(image)) is None


def test_what_is_mounted_by_fuse_is_refused(layer: Path) -> None:
    with pytest.raises(UnsupportedError, match="the stargz snapshotter cannot be used"):
        _found(layer, "fuse.rawBridge", "stargz")


def test_without_anything_mounted_the_table_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounted, "_MOUNTINFO", tmp_path / "nowhere")
    plan = Plan((Directory(tmp_path, committed=False),), None, None)
    assert with_images(plan) is plan
    assert os.listdir(tmp_path) == []


def test_a_layer_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"layer {tmp_path}/gone: No such file or directory"):
        with_images(Plan((Directory(tmp_path / "gone", committed=True),), None, None))
