"""The specification for crun: only the guest's own paths are put in, nothing is widened; ids become safe names."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vminitd.errors import RequestError
from vminitd.spec import Json, JsonValue, for_crun, parse, process_for_crun, safe_name, wants_terminal

SPEC: Json = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "process": {
        "args": ["sh"],
        "user": {"uid": 7, "gid": 8},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "noNewPrivileges": True,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hosts", "type": "bind", "source": "qemubox-file:0", "options": ["rbind", "ro"]},
    ],
    "linux": {
        "cgroupsPath": "/somewhere/else",
        "maskedPaths": ["/proc/kcore"],
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"},
        "resources": {"memory": {"limit": 1 << 40}},
    },
    "futureField": [1, {"x": None}],
}


def adapted(spec: Json, **files: str) -> Json:
    result: Json = json.loads(for_crun(spec, rootfs="/run/r", cgroup="/qemubox/c", files=files))
    return result


def test_only_the_guests_paths_change() -> None:
    before = copy.deepcopy(SPEC)
    expected: Json = copy.deepcopy(SPEC)
    expected["root"] = {"path": "/run/r", "readonly": True}
    assert isinstance(expected["linux"], dict)
    expected["linux"]["cgroupsPath"] = "/qemubox/c"
    expected["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hosts", "type": "bind", "source": "/run/f/0", "options": ["rbind", "ro"]},
    ]
    assert adapted(SPEC, **{"0": "/run/f/0"}) == expected
    assert before == SPEC  # the request itself is left as it came


def test_parts_that_are_missing_are_made() -> None:
    assert adapted({}) == {"root": {"path": "/run/r"}, "linux": {"cgroupsPath": "/qemubox/c"}}


def test_a_file_that_was_not_sent_is_named() -> None:
    with pytest.raises(RequestError, match=r"mount at /etc/hosts names the file '0', which was not sent"):
        adapted(SPEC)


@pytest.mark.parametrize("broken", [{"root": []}, {"linux": "x"}, {"mounts": {}}, {"mounts": ["x"]}])
def test_parts_of_another_type_are_refused(broken: Json) -> None:
    with pytest.raises(RequestError, match="of the specification"):
        adapted(broken)


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b"\xff", b"3"])
def test_what_is_no_json_object_is_refused(document: bytes) -> None:
    with pytest.raises(RequestError, match="the specification is not"):
        parse(document, "the specification")


def test_a_terminal_is_wanted_only_by_true() -> None:
    assert wants_terminal({"terminal": True})
    others: list[JsonValue] = [{"terminal": False}, {"terminal": 1}, {}, None, []]
    for process in others:
        assert not wants_terminal(process)


def test_a_terminal_s_size_is_there_from_the_start() -> None:
    process: Json = {"args": ["sh"], "terminal": True}
    assert json.loads(process_for_crun(process, None)) == process
    assert json.loads(process_for_crun(process, (34, 12))) == {**process, "consoleSize": {"width": 34, "height": 12}}


@pytest.mark.parametrize("name", ["a", "web-1", "A_b.c", "0" * 64, "_x"])
def test_harmless_ids_stay(name: str) -> None:
    assert safe_name(name) == name


@given(st.text())
def test_every_id_becomes_a_name_for_one_path_component(identifier: str) -> None:
    name = safe_name(identifier)
    assert 0 < len(name) <= 64
    assert "/" not in name
    assert not name.startswith((".", "-"))
    assert name.isascii()
    assert name == identifier or name.startswith("sha256-")


@given(st.text(), st.text())
def test_two_ids_never_share_a_name(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


def test_an_id_cannot_pose_as_the_hash_of_another() -> None:
    assert safe_name(safe_name("../etc")) != safe_name("../etc")


def test_a_volume_is_an_entry_of_the_share() -> None:
    """With the mount's own options, and for crun to bind."""
    mount: Json = {"destination": "/v", "type": "bind", "source": "qemubox-volume:3", "options": ["rbind", "nosuid"]}
    spec: Json = {"mounts": [mount]}
    result = json.loads(for_crun(spec, rootfs="/r", cgroup="/c", files={}, share="/run/c/volumes"))
    assert result["mounts"] == [{**mount, "source": "/run/c/volumes/3"}]


@pytest.mark.parametrize(("name", "share"), [("0", ""), ("", "/s"), ("..", "/s"), (".", "/s"), ("0/../..", "/s")])
def test_a_volume_that_is_not_there_is_named(name: str, share: str) -> None:
    spec: Json = {"mounts": [{"destination": "/v", "source": f"qemubox-volume:{name}"}]}
    with pytest.raises(RequestError, match=f"the mount at /v names the volume '{name}', which is not there"):
        for_crun(spec, rootfs="/r", cgroup="/c", files={}, share=share)
