"""How large a container's machine is: a pure decision from the container's limits.

The rule is Kata Containers': the limits, rounded up to what a machine can have, plus a
base for the machine itself; the configured defaults only where there is no limit. A set of CPUs is a limit of their
number, too (cpuset.py).
"""

from dataclasses import dataclass
from typing import Final

from shim import cpuset
from shim.errors import SpecError
from shim.spec import Json, section

# Of 64 MiB of memory the guest's kernel needs one to describe it (struct page: 64 bytes for 4096).
_DESCRIBED: Final = 63


@dataclass(frozen=True, slots=True)
class Size:
    """vCPUs online, MiB for the container on top of the machine's base, and which CPUs of the host it runs on.

    No CPU named: on all that containerd may use.
    """

    cpus: int
    memory_mib: int
    host_cpus: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What containers get without limits, the most that any may have, and what of the host there is to choose from."""

    default_cpus: int
    default_memory_mib: int
    max_cpus: int
    max_memory_mib: int
    host_cpus: frozenset[int] = frozenset({0})
    host_nodes: frozenset[int] = frozenset({0})


def size(spec: Json, bounds: Bounds) -> Size:
    """The size that the specification's linux.resources ask for.

    Raises SpecError where the limits are more than `bounds` allow: a machine that is
    smaller than its container's limit would break the limit's promise.
    """
    resources = section(section(spec, "linux"), "resources")
    cpu = section(resources, "cpu")
    placed = cpuset.host_cpus(cpu, bounds.host_cpus)
    cpuset.check_nodes(cpu, bounds.host_nodes)
    wanted_cpus = fewest(cpus(cpu), len(placed)) or bounds.default_cpus
    wanted_mib = memory_mib(section(resources, "memory")) or min(bounds.default_memory_mib, bounds.max_memory_mib)
    check_memory(wanted_mib, bounds)
    # A quota above the number of vCPUs is no promise of more CPUs than there are: the host's scheduler shares anyway.
    return Size(cpus=min(wanted_cpus, bounds.max_cpus), memory_mib=wanted_mib, host_cpus=placed)


def fewest(*numbers: int) -> int:
    """The smallest one that says anything: 0 where all are 0."""
    return min((number for number in numbers if number), default=0)


def plugged_mib(memory_mib: int) -> int:
    """What a machine must be given on top of its base for a container to have `memory_mib` of it.

    The base has no room for the description of much: that of 8 GiB is as large as the whole base.
    """
    return memory_mib + -(-memory_mib // _DESCRIBED)


def contained_mib(plugged: int) -> int:
    """What of `plugged` MiB a container has: `plugged_mib` the other way round."""
    return plugged * _DESCRIBED // (_DESCRIBED + 1)


def check_memory(memory_mib: int, bounds: Bounds) -> None:
    """Raise SpecError for a memory limit that is more than any machine may have."""
    if memory_mib > bounds.max_memory_mib:
        raise SpecError(
            f"the memory limit of {memory_mib} MiB is more than a machine may have, {bounds.max_memory_mib} MiB",
            hint="lower the limit, or raise vm.max_memory_mib where the host has more",
        )


def cpus(cpu: Json) -> int:
    """How many vCPUs the quota of a specification's `cpu` comes to, rounded up; 0 where there is none."""
    quota, period = _number(cpu, "quota"), _number(cpu, "period") or 100_000
    return -(-quota // period) if quota > 0 and period > 0 else 0


def memory_mib(memory: Json) -> int:
    """The memory limit of a specification's `memory` in MiB, rounded up; 0 where there is none."""
    limit = _number(memory, "limit")
    # Some clients write "no limit" as the largest int64, rounded down to a page.
    return -(-limit // (1 << 20)) if 0 < limit < 1 << 60 else 0


def _number(holder: Json, key: str) -> int:
    value = holder.get(key)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise SpecError(f"{key} of linux.resources is {value!r}, not a whole number")
    return value
