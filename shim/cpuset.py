"""CPU sets: the CPUs of the host that a container is to run on, and those of its machine that stand for them. Pure.

A container's `cpus` name CPUs of the host. Its machine has as many vCPUs as there are in the set, or fewer where the
quota allows no more, and all of QEMU's threads run on the named CPUs; the guest's cgroup gets the set of the vCPUs.
`mems` name the host's memory nodes; the machine has one of its own (docs/decisions/0015).
https://man7.org/linux/man-pages/man7/cpuset.7.html, "List format"
"""

from collections.abc import Iterable, Mapping
from typing import Final

from shim.errors import SpecError, UnsupportedError

# No machine has more: NR_CPUS of an x86 kernel is at most 8192, MAX_NUMNODES 1024.
_MOST: Final = 8192
# A specification's `cpu`.
_Cpu = Mapping[str, object]


def host_cpus(cpu: _Cpu, usable: frozenset[int]) -> frozenset[int]:
    """The CPUs that a specification's `cpu` names; none where it names none.

    Raises SpecError for one that is not `usable`: with runc the kernel refuses it.
    """
    named = _named(cpu, "cpus")
    if lacking := named - usable:
        raise SpecError(
            f"the CPU set {format_list(named)} names {format_list(lacking)}, which containerd may not use",
            hint=f"there are {format_list(usable)}",
        )
    return named


def check_nodes(cpu: _Cpu, nodes: frozenset[int]) -> None:
    """Raise SpecError where `cpu` names a memory node that is not among the host's `nodes`.

    UnsupportedError where it names some of them only: QEMU's memory is wherever the kernel puts it.
    """
    named = _named(cpu, "mems")
    if lacking := named - nodes:
        raise SpecError(
            f"the set of memory nodes {format_list(named)} names {format_list(lacking)}, which the host has not",
            hint=f"there are {format_list(nodes)}",
        )
    if named and named != nodes:
        raise UnsupportedError(
            f"the set of memory nodes {format_list(named)} is not all of {format_list(nodes)}:"
            " a machine's memory cannot be bound to some nodes"
        )


def in_guest(cpu: _Cpu, vcpus: int) -> dict[str, str]:
    """What the guest's cgroup is told for a `cpu` that names CPUs or memory nodes: those of a machine of `vcpus`."""
    meant: dict[str, str] = {}
    if cpu.get("cpus"):
        meant["cpus"] = vcpu_set(vcpus)
    if cpu.get("mems"):
        meant["mems"] = "0"
    return meant


def vcpu_set(vcpus: int) -> str:
    """The set of all vCPUs of a machine."""
    return format_list(range(vcpus))


def format_list(numbers: Iterable[int]) -> str:
    """As the kernel writes a list: "0-3,6"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_list(text: str) -> frozenset[int]:
    """The numbers of a list such as "0-3,6". Raises ValueError."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = _number(first), _number(last if dash else first)
        if not low <= high < _MOST:
            raise ValueError(part)
        numbers.update(range(low, high + 1))
    return frozenset(numbers)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(_MOST)):
        raise ValueError(text)
    return int(text)


def _named(cpu: _Cpu, key: str) -> frozenset[int]:
    value = cpu.get(key)
    if value is None or value == "":
        return frozenset()
    try:
        if not isinstance(value, str):
            raise ValueError(value)
        return parse_list(value)
    except ValueError:
        raise SpecError(f"{key} of linux.resources.cpu is {value!r}", hint='write a list such as "0-3,6"') from None
