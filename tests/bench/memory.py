"""What memory processes have: /proc/PID/smaps_rollup (proc_pid_smaps(5)).

USS is what only that process has, and what would be free without it. PSS is that and its
share of what it has in common with others, so that the PSS of all processes add up to what
they take together. Of memory that QEMU shares with the vsock daemon, what both have touched is
no USS of either: PSS tells.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from tests.bench.results import Point

_KIB_PER_MIB: Final = 1024
_PRIVATE: Final = ("Private_Clean", "Private_Dirty", "Private_Hugetlb")
# What a process is, by a word of its command line.
_KINDS: Final = (
    ("qemu-system-", "QEMU"),
    ("vhost-device-vsock", "vsock daemon"),
    ("anchor_main.py", "anchor"),
    ("containerd-shim-", "shim"),
)


class Memory(NamedTuple):
    """One process's, in KiB."""

    uss: int
    pss: int


def parse(rollup: str) -> Memory:
    """The text of a smaps_rollup. Raises ValueError where it has no Pss."""
    sizes = {}
    for line in rollup.splitlines()[1:]:
        name, _, rest = line.partition(":")
        sizes[name] = int(rest.split()[0])
    if "Pss" not in sizes:
        raise ValueError(f"no Pss in smaps_rollup: {rollup!r}")
    return Memory(sum(sizes.get(name, 0) for name in _PRIVATE), sizes["Pss"])


def kind(command_line: str) -> str:
    """What a process is; what is none of ours is the container's own."""
    return next((name for word, name in _KINDS if word in command_line), "container")


def take(processes: Iterable[psutil.Process], containers: int) -> Point:
    """The memory of `processes` together, by kind."""
    uss: dict[str, int] = {}
    pss: dict[str, int] = {}
    for process in processes:
        name = kind(" ".join(process.cmdline()))
        found = parse(Path(f"/proc/{process.pid}/smaps_rollup").read_text())
        uss[name] = uss.get(name, 0) + found.uss
        pss[name] = pss.get(name, 0) + found.pss
    return Point(containers, _in_mib(uss), _in_mib(pss))


def _in_mib(sizes: dict[str, int]) -> dict[str, float]:
    return {name: round(size / _KIB_PER_MIB, 2) for name, size in sorted(sizes.items())}
