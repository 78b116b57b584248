"""Files that a container can do without are not mounted where a read-only root has no place for them."""

import os
from pathlib import Path

import pytest

from vminitd.files import has_place
from vminitd.spec import Json, JsonValue, without_mounts


def _mount(name: str, destination: str) -> JsonValue:
    return {"destination": destination, "type": "bind", "source": f"qemubox-file:{name}"}


def _spec(*mounts: JsonValue) -> Json:
    return {"root": {}, "mounts": [*mounts]}


def test_only_those_without_a_place_are_left_out() -> None:
    hosts, resolv, other = _mount("own-hosts", "/etc/hosts"), _mount("own-resolv", "/etc/resolv"), _mount("0", "/etc/x")
    proc: JsonValue = {"destination": "/proc", "type": "proc", "source": "proc"}
    spec = _spec(proc, other, hosts, resolv)
    names = {"own-hosts", "own-resolv"}
    assert without_mounts(spec, names, "/etc/hosts".__eq__) == _spec(proc, other, hosts)
    assert without_mounts(spec, names, lambda _: True) == spec
    assert without_mounts(spec, set(), lambda _: False) == spec


@pytest.mark.parametrize("mounts", [None, 5, ["x", None, {}]])
def test_mounts_of_another_shape_are_left_to_others(mounts: JsonValue) -> None:
    spec: Json = {"mounts": mounts}
    assert without_mounts(spec, {"a"}, lambda _: False) == spec
    assert without_mounts({}, {"a"}, lambda _: False) == {}


def test_a_place_is_a_file_within_the_root(tmp_path: Path) -> None:
    (tmp_path / "etc/sub").mkdir(parents=True)
    (tmp_path / "etc/hosts").touch()
    os.symlink("hosts", tmp_path / "etc/link")
    os.symlink("/etc", tmp_path / "etc2")
    root = str(tmp_path)
    assert has_place(root, "/etc/hosts")
    assert has_place(root, "etc//hosts")
    for destination in ("/etc/resolv.conf", "/etc/sub", "/etc/link", "/etc2/hosts", "/none/hosts", "/etc/hosts/x"):
        assert not has_place(root, destination), destination
    assert not has_place(f"{root}/none", "/etc/hosts")
