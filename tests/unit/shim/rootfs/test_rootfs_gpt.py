"""The partition table of a joined disk, read by util-linux; the guest's kernel reads it in tests/vm."""

import os
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.rootfs.gpt import SECTOR, Table, table


@contextmanager
def _assembled(sizes: Sequence[int]) -> Iterator[Path]:
    """The whole disk as a sparse file, with nothing in the images."""
    made = table(sizes)
    with tempfile.NamedTemporaryFile() as file:
        file.write(made.head)
        file.seek(sum(sizes), os.SEEK_CUR)
        file.write(made.tail)
        file.flush()
        yield Path(file.name)


def _partitions(disk: Path) -> list[tuple[int, int]]:
    """(start, length) in bytes, as partx(8) finds them."""
    words = ["partx", "--raw", "--noheadings", "--bytes", "--output", "START,SIZE", str(disk)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return [(int(start) * SECTOR, int(size)) for start, size in (line.split() for line in lines)]


def _expected(sizes: Sequence[int]) -> list[tuple[int, int]]:
    start = len(table(sizes).head)
    return [(start + sum(sizes[:index]), size) for index, size in enumerate(sizes)]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 1 << 18).map(lambda pages: pages * 4096), min_size=1, max_size=128))
def test_any_sizes(sizes: list[int]) -> None:
    with _assembled(sizes) as disk:
        found = _partitions(disk)
        assert found == _expected(sizes)
        assert all(start % 4096 == 0 for start, _ in found)


def test_sectors_are_enough() -> None:
    with _assembled([512, 1024, 4096]) as disk:
        assert _partitions(disk) == _expected([512, 1024, 4096])


def test_the_second_table_stands_in_for_the_first() -> None:
    sizes = [8192, 4096]
    with _assembled(sizes) as disk:
        with disk.open("r+b") as file:
            file.seek(SECTOR)
            file.write(bytes(SECTOR))
        assert _partitions(disk) == _expected(sizes)


def test_headers_check_themselves_and_name_each_other() -> None:
    made = table([4096])
    head, tail = made.head[SECTOR:][:92], made.tail[-SECTOR:][:92]
    for header in (head, tail):
        assert header[:8] == b"EFI PART"
        assert int.from_bytes(header[16:20], "little") == zlib.crc32(header[:16] + bytes(4) + header[20:])
    last = (len(made.head) + 4096 + len(made.tail)) // SECTOR - 1
    own, other = slice(24, 32), slice(32, 40)
    assert int.from_bytes(head[other], "little") == int.from_bytes(tail[own], "little") == last
    assert int.from_bytes(tail[other], "little") == int.from_bytes(head[own], "little") == 1


def test_equal_disks_are_equal_and_others_have_other_names() -> None:
    assert table([4096, 8192]) == table([4096, 8192])
    assert table([4096, 8192]).head[512 + 56 :][:16] != table([8192, 4096]).head[512 + 56 :][:16]
    assert isinstance(table([4096]), Table)


@pytest.mark.parametrize("sizes", [[], [4096] * 129, [0], [-512], [4096, 513]])
def test_what_no_table_can_hold(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="partitions"):
        table(sizes)
