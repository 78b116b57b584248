"""A privileged container has the devices of its machine, whatever the host has."""

import json

import pytest

from shim.errors import SpecError
from shim.json_types import Json, JsonValue
from shim.privileged import DEVICES, allows_all, asked_by_name
from shim.spec import GuestSpec, for_guest

_ALL: Json = {"allow": True, "access": "rwm"}
_NONE: Json = {"allow": False, "access": "rwm"}
# What containerd's HostDevices finds: a disk, a terminal, KVM, and what the guest has as well.
_OF_THE_HOST: list[JsonValue] = [
    {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0, "fileMode": 432},
    {"path": "/dev/tty7", "type": "c", "major": 4, "minor": 7},
    {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232},
    {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "gid": 117},
]


def _of(devices: list[JsonValue], *rules: JsonValue) -> GuestSpec:
    namespaces: list[JsonValue] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")]
    linux: Json = {"namespaces": namespaces, "devices": devices, "resources": {"devices": [*rules]}}
    return for_guest({"process": {"args": ["true"]}, "linux": linux}, terminal=False)


def test_all_devices_are_those_of_the_machine() -> None:
    found = _of(_OF_THE_HOST, _ALL)
    linux = json.loads(found.json)["linux"]
    assert linux["devices"] == [*DEVICES]
    assert linux["resources"]["devices"] == [_ALL]
    assert found.block_volumes == ()


def test_without_the_rule_for_all_each_device_is_looked_at() -> None:
    with pytest.raises(SpecError, match="asks for the device /dev/tty7"):
        _of(_OF_THE_HOST[1:], _NONE)


def test_with_the_rule_alone_they_are_there_too() -> None:
    """The CRI's privileged_without_host_devices with all of them allowed lists none."""
    assert json.loads(_of([], _ALL).json)["linux"]["devices"] == [*DEVICES]


def test_what_was_asked_for_by_name_is_not_forgotten() -> None:
    """It is no more to be had than without --privileged, and says so."""
    rule: Json = {"allow": True, "type": "c", "major": 10, "minor": 232, "access": "rwm"}
    with pytest.raises(SpecError, match="asks for the device /dev/kvm"):
        _of(_OF_THE_HOST, _ALL, rule)


def test_a_device_that_was_asked_for_stands_once() -> None:
    rule: Json = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"}
    devices = json.loads(_of(_OF_THE_HOST, _ALL, rule).json)["linux"]["devices"]
    assert [device for device in devices if device["path"] == "/dev/fuse"] == [_OF_THE_HOST[3]]
    assert len(devices) == len(DEVICES)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], False),
        ([_NONE], False),
        ([_ALL], True),
        ([_NONE, {"allow": True, "type": "a", "major": -1, "minor": -1, "access": "mrw"}], True),
        ([{"allow": True}], True),
        ([_ALL, _NONE], False),
        ([_ALL, {"allow": False, "type": "b", "access": "rwm"}], True),
        ([{"allow": True, "type": "c", "access": "rwm"}], False),
        ([{"allow": True, "type": "a", "access": "rm"}], False),
        ([{"allow": True, "major": 10, "access": "rwm"}], False),
        ([{"allow": "yes", "access": "rwm"}, 5], False),
    ],
)
def test_which_rules_allow_all(rules: list[JsonValue], expected: bool) -> None:
    assert allows_all(rules) is expected


def test_unbuffered_is_a_kind_of_character_device() -> None:
    device: Json = {"path": "/dev/x", "type": "u", "major": 1, "minor": 2}
    rule: Json = {"allow": True, "type": "c", "major": 1, "minor": 2, "access": "r"}
    assert asked_by_name([device], [rule]) == [device]
    assert asked_by_name([device], [{**rule, "allow": False}]) == []
