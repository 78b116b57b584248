"""Sets of CPUs and memory nodes: which are understood, which are refused, and what the guest is told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.cpuset import check_nodes, format_list, host_cpus, in_guest, parse_list
from shim.errors import SpecError, UnsupportedError

_THERE = frozenset({0, 1, 2, 3, 6})


@given(st.frozensets(st.integers(0, 8191), min_size=1, max_size=40))
def test_a_list_is_read_as_it_is_written(numbers: frozenset[int]) -> None:
    assert parse_list(format_list(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("3-3", {3}), ("0-2,6", {0, 1, 2, 6}), ("6,0-1,1", {0, 1, 6}), (" 0 - 1 , 3", {0, 1, 3})],
)
def test_lists(text: str, numbers: set[int]) -> None:
    assert parse_list(text.replace(" - ", "-")) == numbers


@pytest.mark.parametrize(
    "value",
    ["x", "-1", "1-", "-", "3-1", "0,", ",", "0..3", "0-8192", "99999999999999999999", "٣", "0-1-2", "0\n1", 3, ["0"]],
)
def test_what_is_no_list_is_refused_with_the_value(value: object) -> None:
    with pytest.raises(SpecError) as caught:
        host_cpus({"cpus": value}, _THERE)
    assert repr(value) in caught.value.message
    assert "0-3,6" in caught.value.hint


def test_what_names_nothing() -> None:
    for cpu in ({}, {"cpus": None, "mems": None}, {"cpus": "", "mems": ""}):
        assert host_cpus(cpu, _THERE) == frozenset()
        assert in_guest(cpu, 3) == {}
        check_nodes(cpu, frozenset({0}))


def test_cpus_that_are_not_there_are_named() -> None:
    assert host_cpus({"cpus": "1,6"}, _THERE) == {1, 6}
    with pytest.raises(SpecError, match="the CPU set 2-8 names 4-5,7-8") as caught:
        host_cpus({"cpus": "2-8"}, _THERE)
    assert caught.value.hint == "there are 0-3,6"


def test_memory_nodes_are_all_or_refused() -> None:
    check_nodes({"mems": "0-1"}, frozenset({0, 1}))
    with pytest.raises(SpecError, match="nodes 0,2 names 2, which the host has not"):
        check_nodes({"mems": "0,2"}, frozenset({0, 1}))
    with pytest.raises(UnsupportedError, match="nodes 1 is not all of 0-1"):
        check_nodes({"mems": "1"}, frozenset({0, 1}))


def test_the_guest_is_told_of_its_own() -> None:
    assert in_guest({"cpus": "5-7", "mems": "1"}, 3) == {"cpus": "0-2", "mems": "0"}
    assert in_guest({"cpus": "5"}, 1) == {"cpus": "0"}
