"""What new limits mean for a running machine: a pure decision, as sizing.py is for a start.

The rule is that of a start, for what the update names; the rest stays. A limit that is taken away
makes the machine no smaller. On which CPUs of the host it runs is settled first. What grows, grows before the
container may use it; what shrinks, shrinks after it cannot use it any more: `Change.steps` says in which order.
"""

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.any_pb2 import Any

from shim import cpuset, sizing
from shim.errors import ResourceError, SpecError
from shim.sizing import Bounds, Size
from shim.spec import Json, JsonValue, guest_resources, section

# The bare type name of a JSON value in containerd's API (typeurl); some prefix it.
_TYPE: Final = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"
# What a limit is when there is none, for those that crun takes back.
_NO_LIMIT: Final[Mapping[str, Json]] = {
    "memory": {"limit": -1, "swap": -1},
    "cpu": {"quota": -1, "period": 100_000},
    "pids": {"limit": -1},
}
# Whole numbers, and what the kernel takes (cgroup-v2.rst, sched-bwc.rst): microseconds, bytes.
_PERIOD_US: Final = range(1_000, 1_000_001)
_LEAST_QUOTA_US: Final = 1_000


class Step(enum.Enum):
    """One thing to do for a change."""

    PLACE = "CPUs of the host"
    MEMORY = "memory"
    CPUS = "vCPUs"
    CGROUP = "limits"


@dataclass(frozen=True, slots=True)
class Change:
    """From one size and its limits to another.

    `resources` is for the guest's cgroup, `undo` takes it back as far as the limits before are known.
    `in_force` is what holds afterwards.
    """

    steps: tuple[Step, ...]
    before: Size
    after: Size
    resources: Json
    undo: Json
    in_force: Json


def read(resources: Any) -> Json:
    """The OCI LinuxResources of an UpdateTaskRequest. Raises SpecError."""
    if not resources.type_url.endswith(_TYPE):
        raise SpecError(f"the update's resources are a {resources.type_url or 'nothing'!r}, not LinuxResources")
    try:
        document = json.loads(resources.value)
    except ValueError as error:
        raise SpecError(f"the update's resources are not JSON: {error}") from error
    if not isinstance(document, dict):
        raise SpecError(f"the update's resources are {document!r}, not an object")
    return document


def decide(update: Json, in_force: Json, size: Size, bounds: Bounds, room_mib: int) -> Change:
    """What `update` changes where `in_force` holds, on a machine of `size` that can have `room_mib` of memory.

    Raises SpecError for values that mean nothing, ResourceError for more than there can be.
    """
    named = {name: _set_values(value) for name, value in update.items()}
    cpu, memory = section(named, "cpu"), section(named, "memory")
    _check_cpu(cpu)
    after = size
    first: list[Step] = []
    grows: list[Step] = []
    shrinks: list[Step] = []
    cpuset.check_nodes(cpu, bounds.host_nodes)
    if host_cpus := cpuset.host_cpus(cpu, bounds.host_cpus):
        after = replace(after, host_cpus=host_cpus)
        first.append(Step.PLACE)
    if cpu.keys() & {"quota", "period", "cpus"}:
        after = replace(after, cpus=_cpus({**section(in_force, "cpu"), **cpu}, after, bounds))
        (grows if after.cpus >= size.cpus else shrinks).append(Step.CPUS)
    if "limit" in memory:
        after = replace(after, memory_mib=_memory_mib(memory, size, bounds, room_mib))
        (grows if after.memory_mib >= size.memory_mib else shrinks).append(Step.MEMORY)
    wanted = guest_resources(named, after.cpus)
    if size.host_cpus and after.cpus != size.cpus:
        wanted["cpu"] = {**section(wanted, "cpu"), "cpus": cpuset.vcpu_set(after.cpus)}
    return Change(
        steps=(*first, *grows, *([Step.CGROUP] if wanted else []), *shrinks),
        before=size,
        after=after,
        resources=wanted,
        undo=_undo(wanted, in_force, size),
        in_force={**in_force, **{name: _merged(in_force.get(name), value) for name, value in wanted.items()}},
    )


def _cpus(cpu: Json, size: Size, bounds: Bounds) -> int:
    """How many vCPUs a container with that `cpu` has on a machine of `size`, whose CPUs of the host are those to be."""
    # A set is no promise of so many CPUs: others may run on them, too.
    cpus = sizing.fewest(sizing.cpus(cpu), min(len(size.host_cpus), bounds.max_cpus))
    if not cpus:
        return max(size.cpus, min(bounds.default_cpus, bounds.max_cpus))
    if cpus > bounds.max_cpus:
        raise SpecError(
            f"the CPU quota of {cpus} vCPUs is more than a machine may have, {bounds.max_cpus}",
            hint="lower the quota, or raise vm.max_cpus for containers to come",
        )
    return cpus


def _memory_mib(memory: Json, size: Size, bounds: Bounds, room_mib: int) -> int:
    limit = memory["limit"]
    if limit != -1 and isinstance(limit, int) and limit < 0:
        raise SpecError(f"the memory limit is {limit} bytes", hint="a limit is more than 0; -1 takes it away")
    memory_mib = sizing.memory_mib(memory)
    if not memory_mib:
        return max(size.memory_mib, min(bounds.default_memory_mib, room_mib))
    sizing.check_memory(memory_mib, bounds)
    if memory_mib > room_mib:
        raise ResourceError(
            f"the memory limit of {memory_mib} MiB is more than this machine can have, {room_mib} MiB",
            hint="what a machine can grow to is set at its start: start the container anew",
        )
    return memory_mib


def _check_cpu(cpu: Json) -> None:
    quota, period = cpu.get("quota"), cpu.get("period")
    if isinstance(quota, int) and quota != -1 and quota < _LEAST_QUOTA_US:
        raise SpecError(f"the CPU quota is {quota} µs", hint=f"it is at least {_LEAST_QUOTA_US}; -1 takes it away")
    if isinstance(period, int) and period not in _PERIOD_US:
        raise SpecError(
            f"the CPU period is {period} µs", hint=f"it is from {_PERIOD_US.start} to {_PERIOD_US.stop - 1}"
        )


def _set_values(value: JsonValue) -> JsonValue:
    """Without what is null, 0 or empty: clients in Go send these for what they do not mean to set."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if inner or inner is False}


def _merged(old: JsonValue, new: JsonValue) -> JsonValue:
    return {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new


def _undo(wanted: Json, in_force: Json, size: Size) -> Json:
    """What sets back each limit of `wanted`: to that of `in_force`, or to none, where crun knows how.

    A set of CPUs, once given, cannot be taken away: that of all vCPUs is as good.
    """
    none = {**_NO_LIMIT, "cpu": {**_NO_LIMIT["cpu"], "cpus": cpuset.vcpu_set(size.cpus), "mems": "0"}}
    undo: Json = {}
    for name, value in wanted.items():
        before = in_force.get(name)
        if isinstance(value, dict):
            known = {**none.get(name, {}), **(before if isinstance(before, dict) else {})}
            undo[name] = {key: known[key] for key in value if key in known}
        elif before is not None:
            undo[name] = before
    return {name: value for name, value in undo.items() if value}
