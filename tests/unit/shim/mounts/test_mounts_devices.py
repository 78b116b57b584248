"""Block devices among a specification's devices are disks of the machine. Needs root and a loop device."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from shim.errors import SpecError
from shim.json_types import Json, JsonValue
from shim.mounts.devices import as_mounts, without_rules
from shim.spec import for_guest

_DENY: Json = {"allow": False, "access": "rwm"}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Path]:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(4096))
    made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    yield Path(made.stdout.strip())
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def _device(node: Path, path: str = "/dev/xvda", **more: JsonValue) -> Json:
    number = os.stat(node).st_rdev
    return {"path": path, "type": "b", "major": os.major(number), "minor": os.minor(number), **more}


def _rule(device: Json, access: str, *, allow: bool = True) -> Json:
    return {"allow": allow, "type": "b", "major": device["major"], "minor": device["minor"], "access": access}


def test_one_becomes_a_raw_disk(loop: Path) -> None:
    device = _device(loop, fileMode=0o60640, uid=5, gid=6)
    fuse: Json = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}
    other: Json = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    linux: Json = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
        "devices": [device, fuse],
        "resources": {"devices": [_DENY, _rule(device, "rwm"), other]},
    }
    found = for_guest({"process": {"args": ["true"]}, "linux": linux}, terminal=False)
    (volume,) = found.block_volumes
    assert (volume.source, volume.fstype, volume.read_only, volume.destination) == (loop, "raw", False, "/dev/xvda")
    assert volume.options == ("rw", "mode=640", "uid=5", "gid=6")
    document = json.loads(found.json)
    assert document["mounts"] == [
        {"destination": "/dev/xvda", "type": "raw", "source": "qemubox-disk:0", "options": [*volume.options]}
    ]
    assert document["linux"]["devices"] == [fuse]
    # The host's numbers may be those of another disk in the guest.
    assert document["linux"]["resources"]["devices"] == [_DENY, other]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], "ro"),
        (["rm"], "ro"),
        (["r", "w"], "rw"),
        (["rwm"], "rw"),
        (["rwm", "!w"], "ro"),
        (["all"], "rw"),
        (["all", "none"], "ro"),
        (["none", "every block device"], "rw"),
    ],
)
def test_its_rules_say_whether_it_is_written(loop: Path, rules: list[str], expected: str) -> None:
    device = _device(loop)
    known: dict[str, Json] = {
        "all": {"allow": True},
        "none": _DENY,
        "every block device": {"allow": True, "type": "b", "major": -1, "access": "rwm"},
    }
    listed = [known.get(text) or _rule(device, text.lstrip("!"), allow=text[0] != "!") for text in rules]
    other: Json = {"allow": True, "type": "b", "major": 1, "minor": 2, "access": "rwm"}
    (mount,) = as_mounts([device], [other, *listed, {"allow": True, "type": "c", "access": "rwm"}])
    assert cast("list[JsonValue]", mount["options"])[0] == expected


def test_rules_of_others_stay(loop: Path) -> None:
    device = _device(loop)
    rules: list[JsonValue] = [_DENY, {"allow": True, "type": "b", "access": "rwm"}, {"allow": True}, 5]
    assert without_rules([*rules, _rule(device, "r")], [device, {"type": "c", "major": 1, "minor": 3}]) == rules


@pytest.mark.parametrize(("major", "minor"), [(8, 240), (7, None), (None, None), ("7", 0), (True, 0), ([7], {})])
def test_one_that_the_host_has_not(major: JsonValue, minor: JsonValue) -> None:
    with pytest.raises(SpecError, match="asks for the device /dev/x"):
        as_mounts([{"path": "/dev/x", "type": "b", "major": major, "minor": minor}], [])
