"""How large a machine is: the container's limits, rounded up, or the defaults."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import SpecError
from shim.sizing import Bounds, Size, contained_mib, plugged_mib, size
from shim.spec import Json

_BOUNDS = Bounds(default_cpus=2, default_memory_mib=512, max_cpus=8, max_memory_mib=16384)
_MIB = 1 << 20


def _spec(cpu: Json | None = None, memory: Json | None = None) -> Json:
    return {"linux": {"resources": {"cpu": cpu, "memory": memory}}}


@pytest.mark.parametrize(
    ("cpu", "cpus"),
    [
        (None, 2),
        ({}, 2),
        ({"quota": 0}, 2),
        ({"quota": -1, "period": 100000}, 2),
        ({"quota": 50000, "period": 100000}, 1),
        ({"quota": 100000, "period": 100000}, 1),
        ({"quota": 100001, "period": 100000}, 2),
        ({"quota": 250000}, 3),
        ({"quota": 250000, "period": 0}, 3),
        ({"quota": 10**12, "period": 1}, 8),
        ({"quota": 5, "period": -1}, 2),
        ({"shares": 2048}, 2),
    ],
)
def test_cpus(cpu: Json | None, cpus: int) -> None:
    assert size(_spec(cpu=cpu), _BOUNDS).cpus == cpus


@pytest.mark.parametrize(
    ("memory", "mib"),
    [
        (None, 512),
        ({"limit": -1}, 512),
        ({"limit": 0}, 512),
        ({"limit": 9223372036854771712}, 512),
        ({"limit": 1}, 1),
        ({"limit": 256 * _MIB}, 256),
        ({"limit": 256 * _MIB + 1}, 257),
        ({"limit": 16384 * _MIB}, 16384),
        ({"swap": 5}, 512),
    ],
)
def test_memory(memory: Json | None, mib: int) -> None:
    assert size(_spec(memory=memory), _BOUNDS).memory_mib == mib


@pytest.mark.parametrize(
    ("cpu", "wanted"),
    [
        ({"cpus": "0-2"}, Size(3, 512, frozenset({0, 1, 2}))),  # more than the default
        ({"cpus": "3"}, Size(1, 512, frozenset({3}))),  # and less
        ({"cpus": "0-3", "quota": 150_000}, Size(2, 512, frozenset({0, 1, 2, 3}))),
        ({"cpus": "0-1", "quota": 900_000, "mems": "0"}, Size(2, 512, frozenset({0, 1}))),
        ({"cpus": ""}, Size(2, 512)),
        ({"cpus": "0-9"}, Size(8, 512, frozenset(range(10)))),
    ],
)
def test_a_set_of_cpus_is_a_limit_of_their_number(cpu: Json, wanted: Size) -> None:
    assert size(_spec(cpu=cpu), replace(_BOUNDS, host_cpus=frozenset(range(10)))) == wanted


def test_cpus_and_memory_nodes_that_are_not_there_are_refused() -> None:
    for cpu, words in (({"cpus": "0-1"}, "CPU set 0-1 names 1"), ({"mems": "1"}, "nodes 1 names 1")):
        with pytest.raises(SpecError, match=words):
            size(_spec(cpu={**cpu}), _BOUNDS)


def test_more_memory_than_there_may_be_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        size(_spec(memory={"limit": 16384 * _MIB + 1}), _BOUNDS)
    assert "16385 MiB" in caught.value.message
    assert "16384 MiB" in caught.value.message
    assert "vm.max_memory_mib" in caught.value.hint


def test_defaults_above_the_bounds_are_cut() -> None:
    assert size({}, Bounds(4, 4096, 2, 1024)) == Size(2, 1024)


@pytest.mark.parametrize("value", ["5", 1.5, True, [1], {}])
def test_a_limit_that_is_no_whole_number_is_refused(
    value: str | float | bool | list[object] | dict[str, object],
) -> None:
    for spec in (_spec(memory={"limit": value}), _spec(cpu={"quota": value})):  # type: ignore[dict-item]
        with pytest.raises(SpecError, match="not a whole number"):
            size(spec, _BOUNDS)


@given(
    st.one_of(st.none(), st.integers(-(2**63), 2**63)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63)),
)
def test_a_machine_is_never_smaller_than_the_memory_limit(
    quota: int | None, period: int | None, limit: int | None
) -> None:
    try:
        wanted = size(_spec({"quota": quota, "period": period}, {"limit": limit}), _BOUNDS)
    except SpecError:
        assert limit is not None
        assert limit > _BOUNDS.max_memory_mib * _MIB
        return
    assert 1 <= wanted.cpus <= _BOUNDS.max_cpus
    assert 1 <= wanted.memory_mib <= _BOUNDS.max_memory_mib
    if limit is not None and 0 < limit < 1 << 60:
        assert (wanted.memory_mib - 1) * _MIB < limit <= wanted.memory_mib * _MIB


@given(st.integers(1, 1 << 24))
def test_the_machine_has_what_describes_the_memory_too(memory_mib: int) -> None:
    plugged = plugged_mib(memory_mib)
    assert plugged - plugged / 64 >= memory_mib > plugged - plugged / 64 - 1
    assert contained_mib(plugged) == memory_mib


@given(st.integers(0, 1 << 24))
def test_what_a_container_has_of_it_fits(room_mib: int) -> None:
    assert plugged_mib(contained_mib(room_mib)) <= room_mib
