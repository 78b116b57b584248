"""What is read of a process's memory, and which process is what."""

import os
from pathlib import Path

import psutil
import pytest

from tests.bench import memory

# What Linux 6.1 writes, in short.
_ROLLUP = """\
55d0e6f1d000-7ffc8a9f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               20000 kB
Pss:               12345 kB
Pss_Dirty:          9000 kB
Shared_Clean:       8000 kB
Shared_Dirty:          0 kB
Private_Clean:       100 kB
Private_Dirty:      2000 kB
Private_Hugetlb:      30 kB
Swap:                  0 kB
"""


def test_private_pages_are_its_own_and_pss_a_share() -> None:
    assert memory.parse(_ROLLUP) == memory.Memory(uss=2130, pss=12345)


def test_a_process_that_is_no_more_has_none() -> None:
    with pytest.raises(ValueError, match="no Pss"):
        memory.parse("")


def test_that_of_this_process_is_what_psutil_says() -> None:
    found = memory.parse(Path("/proc/self/smaps_rollup").read_text())
    theirs = psutil.Process().memory_full_info()
    assert abs(found.uss * 1024 - theirs.uss) < 4 << 20
    assert abs(found.pss * 1024 - theirs.pss) < 4 << 20


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/usr/bin/qemu-system-x86_64 -name qemubox-1", "QEMU"),
        ("/usr/bin/vhost-device-vsock --vm guest-cid=3", "vsock daemon"),
        ("/usr/bin/python3 -IS /x/anchor_main.py qemubox-anchor-1 17 /run/qemubox/vm/1/empty", "anchor"),
        ("/usr/bin/python3 -ISWignore /x/containerd-shim-qemubox-v1 -id c start", "shim"),
        ("/usr/bin/containerd-shim-runc-v2 -id c", "shim"),
        ("sleep 1000", "container"),
    ],
)
def test_what_a_process_is(line: str, expected: str) -> None:
    assert memory.kind(line) == expected


def test_processes_are_added_up_by_kind() -> None:
    one = memory.take([psutil.Process(os.getpid())], 1)
    two = memory.take([psutil.Process(os.getpid())] * 2, 2)
    assert (one.containers, two.containers, [*one.uss_mib], [*two.pss_mib]) == (1, 2, ["container"], ["container"])
    assert two.pss_mib["container"] == pytest.approx(2 * one.pss_mib["container"], rel=0.2)
