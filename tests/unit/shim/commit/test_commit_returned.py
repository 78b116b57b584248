"""What has not come back to the host is not committed as if it had."""

import json
from pathlib import Path

import pytest

from api import containerd_pb2 as api
from shim.changes import pending
from shim.commit.returned import check_ended, check_wanted
from shim.commit.source import Comparison, Upper
from shim.config import Config, load
from shim.errors import StateError, UnsupportedError
from shim.rootfs.snapshot import identify

_CONTAINER = api.Container(id="c1")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    path = tmp_path / "config.toml"
    path.write_text(f'[runtime]\ndata_dir = "{tmp_path}/data"\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(path))
    return load()


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    directory = tmp_path / "snapshots/1/fs"
    directory.mkdir(parents=True)
    return directory


def _kept(tmp_path: Path, upper: Path) -> Path:
    image = tmp_path / "data/writable" / identify(upper).key / "writable.ext4"
    image.parent.mkdir(parents=True)
    image.touch()
    return image


def _mark(image: Path) -> None:
    with image.open("r+b") as file:
        pending.mark(file.fileno())


def test_nothing_was_kept(config: Config, upper: Path) -> None:
    for has_task in (True, False):
        check_ended(_CONTAINER, Upper(upper, overlay=True), config, has_task=has_task)
        check_ended(_CONTAINER, Comparison(upper), config, has_task=has_task)


def test_an_image_that_nobody_uses_was_kept(tmp_path: Path, config: Config, upper: Path) -> None:
    image = _kept(tmp_path, upper)
    check_ended(_CONTAINER, Upper(upper, overlay=True), config, has_task=True)
    with pytest.raises(StateError, match=f"container c1: what it wrote last .* is in {image} .*start it again"):
        check_ended(_CONTAINER, Upper(upper, overlay=True), config, has_task=False)


def test_a_mark_tells_it_while_the_shim_is_there(tmp_path: Path, config: Config, upper: Path) -> None:
    image = _kept(tmp_path, upper)
    _mark(image)
    for place in (Upper(upper, overlay=True), Comparison(upper)):
        with pytest.raises(StateError, match="has not come back"):
            check_ended(_CONTAINER, place, config, has_task=True)


def test_a_snapshot_s_own_image(config: Config, upper: Path) -> None:
    image = upper.parent / "rwlayer.img"
    place = Upper(upper, overlay=True, image=image)
    check_ended(_CONTAINER, place, config, has_task=False)
    image.touch()
    check_ended(_CONTAINER, place, config, has_task=False)
    _mark(image)
    with pytest.raises(StateError, match=r"rwlayer\.img"):
        check_ended(_CONTAINER, place, config, has_task=False)
    with image.open("r+b") as file:
        pending.clear(file.fileno())
        pending.clear(file.fileno())
    check_ended(_CONTAINER, place, config, has_task=False)


@pytest.mark.parametrize(
    ("mode", "cri", "comes"),
    [("auto", False, True), ("auto", True, False), ("always", True, True), ("never", False, False)],
)
def test_what_the_configuration_does_not_want(config: Config, mode: str, cri: bool, comes: bool) -> None:
    annotations = {"io.kubernetes.cri.container-type": "container"} if cri else {}
    container = api.Container(id="c1")
    container.spec.value = json.dumps({"annotations": annotations}).encode()
    changed = config._replace(rootfs=config.rootfs._replace(write_back=mode))  # type: ignore[arg-type]
    if comes:
        check_wanted(container, changed)
        return
    with pytest.raises(UnsupportedError, match=f"rootfs.write_back is {mode}"):
        check_wanted(container, changed)
