"""Slots are given out lowest first, one each, and no more than there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ResourceError
from shim.vm.slots import Slots


def test_the_lowest_free_slot_is_taken() -> None:
    slots = Slots(3)
    assert [slots.take(name) for name in ("a", "b", "c")] == [1, 2, 3]
    slots.free("b")
    assert slots.take("d") == 2
    assert slots.taken == {"a": 1, "d": 2, "c": 3}


def test_beyond_the_last_slot_is_an_error_that_says_how_many_there_are() -> None:
    slots = Slots(2)
    slots.take("a")
    slots.take("b")
    with pytest.raises(ResourceError, match="device c: all 2 slots"):
        slots.take("c")


def test_a_device_has_one_slot() -> None:
    slots = Slots(2)
    slots.take("a")
    with pytest.raises(ResourceError, match="plugged in already"):
        slots.take("a")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9))))
def test_no_slot_is_ever_held_twice(steps: list[tuple[bool, int]]) -> None:
    slots = Slots(5)
    for take, number in steps:
        device = f"d{number}"
        if take and device not in slots.taken and len(slots.taken) < 5:
            slots.take(device)
        else:
            slots.free(device)
        held = list(slots.taken.values())
        assert len(held) == len(set(held))
        assert all(1 <= slot <= 5 for slot in held)
