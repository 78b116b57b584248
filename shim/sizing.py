"""How large a container's machine is: a pure decision from the container's limits.

The rule is Kata Containers': the limits, rounded up to what a machine can have, plus a
base for the machine itself; the configured defaults only where there is no limit.
"""

from dataclasses import dataclass

from shim.errors import SpecError
from shim.spec import Json, section


@dataclass(frozen=True, slots=True)
class Size:
    """vCPUs online, and MiB for the container on top of the machine's base."""

    cpus: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What containers get without limits, and the most that any may have."""

    default_cpus: int
    default_memory_mib: int
    max_cpus: int
    max_memory_mib: int


def size(spec: Json, bounds: Bounds) -> Size:
    """The size that the specification's linux.resources ask for.

    Raises SpecError where the limits are more than `bounds` allow: a machine that is
    smaller than its container's limit would break the limit's promise.
    """
    resources = section(section(spec, "linux"), "resources")
    cpus = _cpus(section(resources, "cpu")) or min(bounds.default_cpus, bounds.max_cpus)
    memory_mib = _memory_mib(section(resources, "memory")) or min(bounds.default_memory_mib, bounds.max_memory_mib)
    if memory_mib > bounds.max_memory_mib:
        raise SpecError(
            f"the memory limit of {memory_mib} MiB is more than a machine may have, {bounds.max_memory_mib} MiB",
            hint="lower the limit, or raise vm.max_memory_mib where the host has more",
        )
    # A quota above the number of vCPUs is no promise of more CPUs than there are: the host's scheduler shares anyway.
    return Size(cpus=min(cpus, bounds.max_cpus), memory_mib=memory_mib)


def _cpus(cpu: Json) -> int:
    quota, period = _number(cpu, "quota"), _number(cpu, "period") or 100_000
    return -(-quota // period) if quota > 0 and period > 0 else 0


def _memory_mib(memory: Json) -> int:
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
