"""A user namespace goes to the guest as it is, with what its capabilities would give it over a network of its own."""

import copy
import json
from typing import cast

import pytest

from shim import user_namespace
from shim.errors import SpecError
from shim.json_types import Json, JsonValue
from shim.spec import for_guest

_ONE: Json = {"containerID": 0, "hostID": 100000, "size": 65536}
_MAPPINGS: list[JsonValue] = [_ONE]
_BIND, _RAW = "CAP_NET_BIND_SERVICE", "CAP_NET_RAW"


def _spec(uids: JsonValue, gids: JsonValue, *capabilities: str, user: bool = True, sysctl: Json | None = None) -> Json:
    kinds = ("pid", "ipc", "uts", "mount", "network", *(("user",) if user else ()))
    linux: Json = {
        "namespaces": [{"type": kind} for kind in kinds],
        "uidMappings": copy.deepcopy(uids),
        "gidMappings": copy.deepcopy(gids),
    }
    if sysctl:
        linux["sysctl"] = sysctl
    process: Json = {"args": ["true"], "cwd": "/", "capabilities": {"bounding": [*capabilities]}}
    return {"root": {"path": "rootfs"}, "process": process, "linux": linux}


def _linux(spec: Json) -> Json:
    return cast("Json", json.loads(for_guest(spec, terminal=False).json)["linux"])


def test_it_is_made_in_the_guest_as_it_is() -> None:
    linux = _linux(_spec(_MAPPINGS, _MAPPINGS))
    assert {"type": "user"} in cast("list[JsonValue]", linux["namespaces"])
    assert (linux["uidMappings"], linux["gidMappings"]) == (_MAPPINGS, _MAPPINGS)
    assert "sysctl" not in linux


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ((), None),
        (("CAP_CHOWN",), None),
        ((_BIND,), {"net.ipv4.ip_unprivileged_port_start": "0"}),
        (
            (_RAW, _BIND),
            {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        ),
    ],
)
def test_what_its_root_may_do_with_the_network(capabilities: tuple[str, ...], expected: Json | None) -> None:
    assert _linux(_spec(_MAPPINGS, _MAPPINGS, *capabilities)).get("sysctl") == expected


def test_what_the_specification_sets_stays() -> None:
    asked: Json = {"net.ipv4.ip_unprivileged_port_start": "80", "kernel.x": "1"}
    assert _linux(_spec(_MAPPINGS, _MAPPINGS, _BIND, sysctl=asked))["sysctl"] == asked


def test_without_one_nothing_is_opened() -> None:
    assert "sysctl" not in _linux(_spec(None, None, _BIND, _RAW, user=False))


@pytest.mark.parametrize(
    ("uids", "gids", "user", "words"),
    [
        (None, _MAPPINGS, True, "a user namespace, and no linux.uidMappings"),
        (_MAPPINGS, [], True, "a user namespace, and no linux.gidMappings"),
        (_MAPPINGS, None, False, "no user namespace for its linux.uidMappings"),
        (None, _MAPPINGS, False, "no user namespace for its linux.gidMappings"),
    ],
)
def test_one_without_the_other_is_refused(uids: JsonValue, gids: JsonValue, user: bool, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        for_guest(_spec(uids, gids, user=user), terminal=False)
    assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [{"containerID": -1}, {"hostID": None}, {"size": 0}, {"size": 1 << 32}, {"size": True}, {"hostID": "5"}],
)
def test_what_maps_nothing_is_refused(change: Json) -> None:
    for uids, gids in (([{**_ONE, **change}], _MAPPINGS), (_MAPPINGS, [_ONE, {**_ONE, **change}])):
        with pytest.raises(SpecError, match="which maps no user numbers"):
            for_guest(_spec(cast("JsonValue", uids), cast("JsonValue", gids)), terminal=False)


@pytest.mark.parametrize("mappings", [[5], "all", {"containerID": 0}])
def test_what_is_no_list_of_mappings_is_refused(mappings: JsonValue) -> None:
    with pytest.raises(SpecError, match="which maps no user numbers"):
        user_namespace.check({"namespaces": [{"type": "user"}], "uidMappings": mappings, "gidMappings": mappings})
