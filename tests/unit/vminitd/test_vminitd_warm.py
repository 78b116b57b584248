"""The container that warms a template up."""

import json

from vminitd.crun import PROGRAM
from vminitd.devices import RULES, SHARED
from vminitd.warm import specification


def test_the_warm_up_is_confined_like_a_container_and_has_no_file_system_of_its_own() -> None:
    spec = json.loads(specification("/somewhere"))
    assert spec["root"] == {"path": "/somewhere", "readonly": True}
    assert spec["process"]["args"][0] == PROGRAM
    assert spec["process"]["noNewPrivileges"] is True
    assert {entry["type"] for entry in spec["linux"]["namespaces"]} >= {"pid", "ipc", "uts", "mount", "cgroup"}
    assert spec["linux"]["resources"] == {"devices": RULES}
    assert spec["linux"]["cgroupsPath"] == SHARED
    assert [entry["destination"] for entry in spec["mounts"] if entry["type"] == "bind"] == ["/usr"]
    assert all("ro" in entry["options"] for entry in spec["mounts"] if entry["type"] in ("bind", "sysfs", "cgroup"))
