"""What the host has to give: the upper bounds of a machine's size."""

import os
from pathlib import Path

from shim.config import Config
from shim.cpuset import parse_list
from shim.sizing import Bounds

_NODES = Path("/sys/devices/system/node/has_memory")


def bounds(config: Config) -> Bounds:
    """The configured bounds, where they are 0 the host's own: its CPUs, and its memory in MiB."""
    # As containerd has them: what it was confined to, so is all that it starts.
    host_cpus = frozenset(os.sched_getaffinity(0))
    host_memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Bounds(
        default_cpus=config.vm.default_cpus,
        default_memory_mib=config.vm.default_memory_mib,
        max_cpus=config.vm.max_cpus or len(host_cpus),
        max_memory_mib=config.vm.max_memory_mib or host_memory_mib,
        host_cpus=host_cpus,
        host_nodes=_memory_nodes(),
    )


def _memory_nodes() -> frozenset[int]:
    try:
        return parse_list(_NODES.read_text().strip())
    except (OSError, ValueError):  # a kernel without CONFIG_NUMA has one node and no list of them
        return frozenset({0})
