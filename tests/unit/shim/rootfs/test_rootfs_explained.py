"""What the guest says of a disk is told with the file of the host that it is."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.errors import GuestError
from shim.rootfs import gpt
from shim.rootfs.explained import explain, explained
from shim.rootfs.plan import Disk, Extent
from ttrpc import Code


@pytest.fixture
def disks() -> Iterator[dict[str, Disk]]:
    """A disk of its own, and one with three layers, of which the second has two files."""
    table = gpt.table([4096, 8192, 4096])
    fd = os.memfd_create("table")
    os.write(fd, table.head)

    def extent(name: str) -> Extent:
        return Extent(fd, Path("/images", name), 4096)

    head, tail = (Extent(fd, Path("table"), len(part)) for part in (table.head, table.tail))
    yield {
        "rw-1": Disk("rw", (extent("rw"),), read_only=False, partitioned=False),
        "l0-1": Disk("l0", (head, *map(extent, "abcd"), tail), read_only=True, partitioned=True),
    }
    os.close(fd)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ("ext4 on disk 'rw-1'", " (/images/rw)"),
        ("erofs on disk 'l0-1' partition 1", " (/images/a)"),
        ("erofs on disk 'l0-1' partition 2", " (/images/b)"),
        ("erofs on disk 'l0-1' partition 3", " (/images/d)"),
        ("erofs on disk 'l0-1' partition 4", ""),
        ("erofs on disk 'l0-1' partition 129", ""),
        ("erofs on disk 'l0-1'", ""),
        ("ext4 on disk 'rw-1' partition 1", ""),
        ("erofs on disk 'l7-1' partition 1", ""),
        ("no disk at all", ""),
    ],
)
def test_the_file_is_named_if_there_is_one(disks: dict[str, Disk], said: str, named: str) -> None:
    assert explain(f"cannot mount {said}: Bad message", disks) == f"cannot mount {said}{named}: Bad message"


def test_only_errors_of_the_guest_are_touched(disks: dict[str, Disk]) -> None:
    with pytest.raises(GuestError, match=r"^ext4 on disk 'rw-1' \(/images/rw\)$") as raised, explained(disks):
        raise GuestError(Code.ABORTED, "ext4 on disk 'rw-1'")
    assert raised.value.status is Code.ABORTED
    own = GuestError(Code.ABORTED, "something else")
    with pytest.raises(GuestError) as raised, explained(disks):
        raise own
    assert raised.value is own
