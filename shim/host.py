"""What the host has to give: the upper bounds of a machine's size."""

import os

from shim.config import Config
from shim.sizing import Bounds


def bounds(config: Config) -> Bounds:
    """The configured bounds, where they are 0 the host's own: its CPUs, and its memory in MiB."""
    host_cpus = len(os.sched_getaffinity(0))
    host_memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Bounds(
        default_cpus=config.vm.default_cpus,
        default_memory_mib=config.vm.default_memory_mib,
        max_cpus=config.vm.max_cpus or host_cpus,
        max_memory_mib=config.vm.max_memory_mib or host_memory_mib,
    )
