"""Which layers share a disk, and the message for the guest."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.rootfs.plan import PARTITIONS, Disk, Extent, GuestLayer, GuestRootfs, arrange, to_message


def test_few_layers_have_a_disk_each() -> None:
    assert arrange(0) == ()
    assert arrange(4) == (range(1), range(1, 2), range(2, 3), range(3, 4))


def test_many_layers_share_disks() -> None:
    assert arrange(5) == (range(5),)
    assert arrange(128) == (range(128),)
    assert arrange(300) == (range(128), range(128, 256), range(256, 300))


@given(st.integers(0, 1000))
def test_every_layer_is_on_one_disk_in_order(count: int) -> None:
    runs = arrange(count)
    assert [index for run in runs for index in run] == list(range(count))
    assert all(1 <= len(run) <= PARTITIONS for run in runs)
    assert len(runs) <= max(4, -(-count // PARTITIONS))


def test_the_message_for_the_guest() -> None:
    rootfs = GuestRootfs((GuestLayer("l0", 2, "erofs", ("noacl",)),), GuestLayer("rw", 0, "ext4"))
    message = to_message(rootfs)
    assert (message.lower[0].serial, message.lower[0].partition, message.lower[0].fstype) == ("l0", 2, "erofs")
    assert list(message.lower[0].options) == ["noacl"]
    assert (message.writable.serial, message.writable.fstype, message.whole) == ("rw", "ext4", False)
    assert not to_message(GuestRootfs((), None)).HasField("writable")
    assert to_message(GuestRootfs((), GuestLayer("rw", 0, "ext4"), whole=True)).whole


@pytest.mark.parametrize("serial", ["", "x" * 21, "ü" * 11])
def test_a_serial_number_that_the_guest_would_see_cut_off(serial: str) -> None:
    with pytest.raises(ValueError, match="must have 1 to 20 bytes"):
        Disk(serial, (Extent(0, Path("/x"), 512),), read_only=True, partitioned=False)
