"""One program of the kernel for the devices of all containers that have containerd's usual rules.

Which devices a container may open is decided by a program that crun makes of the specification's rules and attaches to
its cgroup. Checking and translating that program is 7 % of what a container's creation costs in a clone under TCG
(docs/decisions/0013). Nearly all containers have the same rules, so a template has one such container made, by crun,
and keeps its cgroup. In a clone, a container with exactly these rules gets a cgroup below that one, and crun is not
told of the rules again: a program holds for all cgroups below its own, whatever is attached to those: all on the way
must say yes (BPF_F_ALLOW_MULTI, include/uapi/linux/bpf.h). Other rules, one more or in another order, are crun's
business as ever.
"""

import os

from vminitd.boot import CGROUP_ROOT
from vminitd.cgroup import PARENT
from vminitd.errors import KernelError
from vminitd.libc import attached_device_programs
from vminitd.spec import Json, JsonValue

SHARED = f"{PARENT}/+devices"
"""The cgroup. No container's name begins like that (`spec.safe_name`)."""


def _allow(major: int, minor: int | None) -> Json:
    numbers: Json = {"major": major} if minor is None else {"major": major, "minor": minor}
    return {"allow": True, "type": "c", **numbers, "access": "rwm"}


RULES: list[JsonValue] = [
    {"allow": False, "access": "rwm"},
    *(_allow(1, minor) for minor in (3, 8, 7)),
    _allow(5, 0),
    *(_allow(1, minor) for minor in (5, 9)),
    _allow(5, 1),
    _allow(136, None),
    _allow(5, 2),
]
"""containerd's: pkg/oci/spec.go, populateDefaultUnixSpec, and pkg/oci/spec_opts_unix.go, WithDefaultUnixDevices."""


def has_usual_rules(spec: Json) -> bool:
    """Whether the rules of `spec` are RULES, the very same."""
    linux = spec.get("linux")
    resources = linux.get("resources") if isinstance(linux, dict) else None
    return isinstance(resources, dict) and resources.get("devices") == RULES


def without_rules(spec: Json) -> Json:
    """`spec`, which `has_usual_rules`, without them."""
    linux = spec["linux"]
    assert isinstance(linux, dict)
    resources = linux["resources"]
    assert isinstance(resources, dict)
    return {**spec, "linux": {**linux, "resources": {key: resources[key] for key in resources if key != "devices"}}}


def check_attached(cgroup: str = SHARED) -> None:
    """Raises KernelError unless there is a program for devices at `cgroup`, and exactly one."""
    directory = os.open(CGROUP_ROOT + cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        count = attached_device_programs(directory)
    finally:
        os.close(directory)
    if count != 1:
        raise KernelError(f"the cgroup {cgroup} has {count} programs for devices, not 1")
