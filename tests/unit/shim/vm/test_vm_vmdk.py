"""The descriptor of a joined disk."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import HostError
from shim.vm.vmdk import DESCRIPTOR_LIMIT, Extent, descriptor


def test_the_whole_text() -> None:
    text = descriptor([Extent("table", "/dev/fdset/1", 1048576), Extent("layer", "/dev/fdset/2", 512)])
    assert text.decode() == (
        "# Disk DescriptorFile\n"
        "version=1\n"
        "CID=fffffffe\n"
        "parentCID=ffffffff\n"
        'createType="monolithicFlat"\n'
        'RW 2048 FLAT "/dev/fdset/1" 0\n'
        'RW 1 FLAT "/dev/fdset/2" 0\n'
    )


@given(st.lists(st.integers(1, 1 << 40), min_size=1, max_size=130))
def test_sizes_and_order_are_kept(sectors: list[int]) -> None:
    text = descriptor([Extent("x", f"/dev/fdset/{n}", size * 512) for n, size in enumerate(sectors)]).decode()
    found = re.findall(r'^RW (\d+) FLAT "/dev/fdset/(\d+)" 0$', text, re.MULTILINE)
    assert found == [(str(size), str(n)) for n, size in enumerate(sectors)]
    assert len(text) < DESCRIPTOR_LIMIT


@pytest.mark.parametrize("size", [0, 1, 511, 513])
def test_a_file_that_is_not_whole_sectors_is_named(size: int) -> None:
    with pytest.raises(HostError, match=f"/layers/x of {size} bytes"):
        descriptor([Extent("/layers/x", "/dev/fdset/1", size)])


@pytest.mark.parametrize("path", ['/a"b', "/a\nb", "/a\rb"])
def test_a_path_that_would_end_the_line_is_refused(path: str) -> None:
    with pytest.raises(HostError, match="cannot stand in a VMDK descriptor"):
        descriptor([Extent("x", path, 512)])


def test_no_files_are_no_disk() -> None:
    with pytest.raises(HostError, match="no files"):
        descriptor([])


def test_a_descriptor_that_qemu_would_cut_is_refused() -> None:
    with pytest.raises(HostError, match="too long"):
        descriptor([Extent("x", "/" + "p" * 300, 512)] * 4000)
