"""The figures of a container, as containerd's clients read them, made of its cgroup's files. Pure.

The files are the kernel's (https://docs.kernel.org/admin-guide/cgroup-v2.html), but they come from a guest, which is
not trusted: of each no more than FILE_LIMIT bytes count, and what is no number of at most 64 bits is 0. What becomes of
which file is as in github.com/containerd/cgroups (cgroup2, Manager.Stat), runc's shim's own source of these figures.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from google.protobuf.message import Message

from api import metrics_pb2

if TYPE_CHECKING:
    from shim.network.counters import Counters

FILE_LIMIT: Final = 64 << 10
"""Bytes of one file: memory.stat has 1,500, and io.stat 100 for each disk."""

_MAX: Final = (1 << 64) - 1
_HUGE_PAGES: Final = ("2MB", "1GB")
_CPU: Final = frozenset(("usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"))
_CPU_BURST: Final = frozenset(("nr_bursts", "burst_usec"))
_IO: Final = frozenset(("rbytes", "wbytes", "rios", "wios"))
_EVENTS: Final = frozenset(field.name for field in metrics_pb2.MemoryEvents.DESCRIPTOR.fields)
# The fields of MemoryStat that are files of their own; all others are lines of memory.stat.
_MEMORY_FILES: Final = {
    "usage": "memory.current",
    "usage_limit": "memory.max",
    "max_usage": "memory.peak",
    "swap_usage": "memory.swap.current",
    "swap_limit": "memory.swap.max",
    "swap_max_usage": "memory.swap.peak",
}
_MEMORY: Final = frozenset(
    field.name
    for field in metrics_pb2.MemoryStat.DESCRIPTOR.fields
    if field.message_type is None and field.name not in _MEMORY_FILES
)


def metrics(files: Mapping[str, bytes], network: Iterable["Counters"] = ()) -> metrics_pb2.Metrics:
    """The figures of a cgroup whose files these are; of a file that is not there they are 0.

    `network` is what the host has counted on the container's interfaces.
    """
    found = metrics_pb2.Metrics()
    # Clients look into these without asking whether they are there.
    for part in (found.pids, found.cpu, found.memory, found.rdma, found.io, found.memory_events):
        part.SetInParent()
    found.pids.current = _number(_content(files, "pids.current"))
    found.pids.limit = _number(_content(files, "pids.max"))
    _set(found.cpu, _pairs(_lines(files, "cpu.stat")), _CPU | _CPU_BURST)
    _set(found.memory, _pairs(_lines(files, "memory.stat")), _MEMORY)
    for field, name in _MEMORY_FILES.items():
        setattr(found.memory, field, _number(_content(files, name)))
    _set(found.memory_events, _pairs(_lines(files, "memory.events")), _EVENTS)
    found.io.usage.extend(_devices(_lines(files, "io.stat")))
    found.hugetlb.extend(_huge_pages(files))
    for name, psi in (("cpu", found.cpu.psi), ("memory", found.memory.psi), ("io", found.io.psi)):
        _pressure(_lines(files, f"{name}.pressure"), psi)
    found.network.extend(metrics_pb2.NetworkStat(**asdict(counters)) for counters in network)
    return found


def _content(files: Mapping[str, bytes], name: str) -> str:
    return files.get(name, b"")[:FILE_LIMIT].decode("ascii", errors="replace")


def _lines(files: Mapping[str, bytes], name: str) -> list[str]:
    return _content(files, name).splitlines()


def _number(text: str) -> int:
    """A number, or "max" for a limit that is not set."""
    text = text.strip()
    if text == "max":
        return _MAX
    # 2^64 has 20 digits. isdigit alone is true of digits of all scripts, but the text is ASCII.
    return min(int(text), _MAX) if text.isdigit() and len(text) <= len(str(_MAX)) else 0


def _pairs(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Of a "flat keyed" file: one "KEY VALUE" a line."""
    for line in lines:
        key, _, value = line.partition(" ")
        yield key, value


def _set(message: Message, pairs: Iterable[tuple[str, str]], known: frozenset[str]) -> None:
    for key, value in pairs:
        if key in known:
            setattr(message, key, _number(value))


def _devices(lines: Iterable[str]) -> Iterator[metrics_pb2.IOEntry]:
    """Of io.stat, "nested keyed": "MAJOR:MINOR KEY=VALUE KEY=VALUE ..." a line."""
    for line in lines:
        device, *words = line.split()[:32] or [""]
        major, colon, minor = device.partition(":")
        if not (colon and major.isdigit() and minor.isdigit()):
            continue
        entry = metrics_pb2.IOEntry(major=_number(major), minor=_number(minor))
        _set(entry, ((key, value) for key, _, value in (word.partition("=") for word in words)), _IO)
        yield entry


def _huge_pages(files: Mapping[str, bytes]) -> Iterator[metrics_pb2.HugeTlbStat]:
    for size in _HUGE_PAGES:
        current, limit = (_content(files, f"hugetlb.{size}.{name}") for name in ("current", "max"))
        if current:
            yield metrics_pb2.HugeTlbStat(pagesize=size, current=_number(current), max=_number(limit))


def _pressure(lines: Iterable[str], psi: metrics_pb2.PSIStats) -> None:
    """Of a *.pressure file: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0", and the same of "full"."""
    for line in lines:
        kind, *words = line.split()[:8] or [""]
        if kind not in ("some", "full"):
            continue
        data = psi.some if kind == "some" else psi.full
        data.SetInParent()
        for word in words:
            key, _, value = word.partition("=")
            if key == "total":
                data.total = _number(value)
            elif key in ("avg10", "avg60", "avg300"):
                setattr(data, key, _percentage(value))


def _percentage(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0
