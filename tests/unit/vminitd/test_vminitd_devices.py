"""Which containers get the program for devices that is there already: those with the very rules that it was made of."""

import copy
import json
from pathlib import Path

import pytest

from vminitd.devices import RULES, SHARED, has_usual_rules, without_rules
from vminitd.spec import Json, JsonValue, safe_name


@pytest.fixture
def spec() -> Json:
    resources: Json = {"devices": copy.deepcopy(RULES), "cpu": {"shares": 1024}}
    return {"ociVersion": "1.3.0", "linux": {"resources": resources, "cgroupsPath": "/default/c1"}}


def test_the_usual_rules_are_left_to_the_program_that_is_there(spec: Json) -> None:
    before = copy.deepcopy(spec)
    assert has_usual_rules(spec)
    kept = without_rules(spec)
    assert kept["linux"] == {"resources": {"cpu": {"shares": 1024}}, "cgroupsPath": "/default/c1"}
    assert kept["ociVersion"] == "1.3.0"
    assert spec == before


_ONE_MORE: Json = {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
_ALL: Json = {"allow": True, "access": "rwm"}


@pytest.mark.parametrize(
    "rules", [RULES[:-1], [*RULES, _ONE_MORE], RULES[1:], [*RULES[1:], RULES[0]], [_ALL], [], None, "rules"]
)
def test_other_rules_are_crun_s_to_enforce(spec: Json, rules: JsonValue) -> None:
    other = json.loads(json.dumps({**spec, "linux": {"resources": {"devices": rules}}}))
    assert not has_usual_rules(other)


@pytest.mark.parametrize("document", [{}, {"linux": None}, {"linux": {"resources": []}}, {"linux": {}}])
def test_no_rules_are_other_rules(document: Json) -> None:
    assert not has_usual_rules(document)


def test_no_container_s_cgroup_is_in_its_place() -> None:
    assert safe_name(Path(SHARED).name) != Path(SHARED).name
