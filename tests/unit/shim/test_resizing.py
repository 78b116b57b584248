"""What an update makes of a running machine: how large, in which order, and what is refused."""

import json
from dataclasses import replace

import pytest
from google.protobuf.any_pb2 import Any
from hypothesis import given
from hypothesis import strategies as st

from shim.errors import ResourceError, SpecError
from shim.resizing import Change, Step, decide, read
from shim.sizing import Bounds, Size
from shim.spec import Json, JsonValue, section

_BOUNDS = Bounds(default_cpus=1, default_memory_mib=512, max_cpus=4, max_memory_mib=4096, host_cpus=frozenset(range(4)))
_MIB = 1 << 20
_SIZE = Size(cpus=2, memory_mib=1024)
_IN_FORCE: Json = {"memory": {"limit": 1024 * _MIB}, "cpu": {"quota": 200_000, "period": 100_000, "shares": 512}}
_TYPE = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"

_GROW_MEMORY: Json = {"memory": {"limit": 2048 * _MIB}}
_SHRINK_MEMORY: Json = {"memory": {"limit": 256 * _MIB}}
_GROW_CPUS: Json = {"cpu": {"quota": 400_000}}
_SHRINK_CPUS: Json = {"cpu": {"quota": 50_000}}


def _decide(update: Json, in_force: Json = _IN_FORCE, size: Size = _SIZE, room_mib: int = 4096) -> Change:
    return decide(update, in_force, size, _BOUNDS, room_mib)


@pytest.mark.parametrize(
    ("update", "after", "steps"),
    [
        (_GROW_MEMORY, Size(2, 2048), (Step.MEMORY, Step.CGROUP)),
        (_SHRINK_MEMORY, Size(2, 256), (Step.CGROUP, Step.MEMORY)),
        (_GROW_CPUS, Size(4, 1024), (Step.CPUS, Step.CGROUP)),
        (_SHRINK_CPUS, Size(1, 1024), (Step.CGROUP, Step.CPUS)),
        ({**_GROW_MEMORY, **_SHRINK_CPUS}, Size(1, 2048), (Step.MEMORY, Step.CGROUP, Step.CPUS)),
        ({**_SHRINK_MEMORY, **_GROW_CPUS}, Size(4, 256), (Step.CPUS, Step.CGROUP, Step.MEMORY)),
        ({"cpu": {"shares": 100}}, _SIZE, (Step.CGROUP,)),
        ({"pids": {"limit": 5}}, _SIZE, (Step.CGROUP,)),
        ({}, _SIZE, ()),
        # A size that was lost is set again: the machine may not have taken what it was asked before.
        ({"memory": {"limit": 1024 * _MIB}}, _SIZE, (Step.MEMORY, Step.CGROUP)),
    ],
)
def test_grown_before_and_shrunk_after_the_container_may_use_it(
    update: Json, after: Size, steps: tuple[Step, ...]
) -> None:
    change = _decide(update)
    assert (change.before, change.after, change.steps) == (_SIZE, after, steps)


@pytest.mark.parametrize(
    ("cpu", "cpus"),
    [
        ({"quota": 150_001}, 2),
        ({"period": 50_000}, 4),
        ({"period": 200_000}, 1),
        ({"quota": 30_000, "period": 10_000}, 3),
        ({"quota": -1}, 2),
    ],
)
def test_what_is_not_named_of_a_quota_stays(cpu: Json, cpus: int) -> None:
    assert _decide({"cpu": cpu}).after.cpus == cpus


def test_memory_is_rounded_up_to_whole_mib() -> None:
    assert _decide({"memory": {"limit": 300 * _MIB + 1}}).after.memory_mib == 301


@pytest.mark.parametrize("limit", [-1, 9223372036854771712])
def test_a_limit_that_is_taken_away_makes_no_machine_smaller(limit: int) -> None:
    update: Json = {"memory": {"limit": limit}, "cpu": {"quota": -1}}
    assert _decide(update).after == _SIZE
    assert _decide(update, size=Size(1, 128)).after == Size(1, 512)


@pytest.mark.parametrize(
    "update",
    [
        {"memory": {"limit": 0, "swap": None}, "cpu": {"quota": 0, "period": 0, "shares": 0}},
        {"memory": None, "cpu": None},
    ],
)
def test_zero_and_null_mean_nothing_was_named(update: Json) -> None:
    change = _decide(update)
    assert change.after == _SIZE
    assert not {Step.MEMORY, Step.CPUS} & {*change.steps}
    assert [value for value in change.resources.values() if value] == []


def test_what_only_the_host_has_does_not_reach_the_guest() -> None:
    update: Json = {"cpu": {"cpus": "", "shares": 7}, "network": {"classID": 3}, "unified": {"memory.low": "5"}}
    assert _decide(update).resources == {"cpu": {"shares": 7}, "unified": {"memory.low": "5"}}


_TWO = frozenset({1, 2})
_PLACED = Size(cpus=2, memory_mib=1024, host_cpus=_TWO)


@pytest.mark.parametrize(
    ("size", "update", "after", "steps", "told"),
    [
        # The quota stays, 2 CPUs.
        (_SIZE, {"cpus": "1-3"}, Size(2, 1024, frozenset({1, 2, 3})), (Step.PLACE, Step.CPUS, Step.CGROUP), "0-1"),
        (_SIZE, {"cpus": "3"}, Size(1, 1024, frozenset({3})), (Step.PLACE, Step.CGROUP, Step.CPUS), "0"),
        (
            _SIZE,
            {"cpus": "0-3", "quota": -1},
            Size(4, 1024, frozenset({0, 1, 2, 3})),
            (Step.PLACE, Step.CPUS, Step.CGROUP),
            "0-3",
        ),
        # A quota of more than the set is no more, nor refused: the set is what holds.
        (_PLACED, {"quota": 900_000}, _PLACED, (Step.CPUS, Step.CGROUP), None),
        (_PLACED, {"quota": 100_000}, Size(1, 1024, _TWO), (Step.CGROUP, Step.CPUS), "0"),
        (Size(1, 1024, _TWO), {"quota": 200_000}, _PLACED, (Step.CPUS, Step.CGROUP), "0-1"),
        (_PLACED, {"shares": 5}, _PLACED, (Step.CGROUP,), None),
    ],
)
def test_a_set_of_cpus(size: Size, update: Json, after: Size, steps: tuple[Step, ...], told: str | None) -> None:
    """First the place, then the number; the guest is told of the vCPUs that stand for it, when they change."""
    change = _decide({"cpu": update}, size=size)
    assert (change.after, change.steps) == (after, steps)
    assert section(change.resources, "cpu").get("cpus") == told
    assert section(change.in_force, "cpu").get("cpus") == told
    if told:
        assert section(change.undo, "cpu")["cpus"] == ("0-1" if size.cpus == 2 else "0")


def test_a_set_is_no_promise_of_so_many_cpus() -> None:
    bounds = replace(_BOUNDS, max_cpus=2)
    assert decide({"cpu": {"cpus": "0-3", "quota": -1}}, {}, _SIZE, bounds, 4096).after.cpus == 2


@pytest.mark.parametrize(
    ("cpu", "words"), [({"cpus": "0,4"}, "CPU set 0,4 names 4"), ({"mems": "0-1"}, "names 1"), ({"cpus": "all"}, "all")]
)
def test_a_set_that_the_host_has_not_is_refused(cpu: Json, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        _decide({"cpu": cpu, **_GROW_MEMORY})


def test_what_takes_it_back() -> None:
    update: Json = {
        "memory": {"limit": 1, "reservation": 5},
        "cpu": {"quota": 100_000, "shares": 9},
        "pids": {"limit": 7},
        "unified": {"x": "y"},
    }
    assert _decide(update).undo == {
        "memory": {"limit": 1024 * _MIB},
        "cpu": {"quota": 200_000, "shares": 512},
        "pids": {"limit": -1},
    }
    assert _decide(_GROW_MEMORY, in_force={}).undo == {"memory": {"limit": -1}}
    assert _decide({"rdmaLike": 5}, in_force={"rdmaLike": 4}).undo == {"rdmaLike": 4}


def test_one_update_builds_on_the_other() -> None:
    first = _decide({"cpu": {"period": 50_000}})
    assert first.in_force["cpu"] == {"quota": 200_000, "period": 50_000, "shares": 512}
    assert _decide({"cpu": {"quota": 100_000}}, first.in_force, first.after).after.cpus == 2


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"memory": {"limit": 4096 * _MIB + 1}}, ("4097 MiB", "4096 MiB", "vm.max_memory_mib")),
        ({"memory": {"limit": -2}}, ("-2 bytes",)),
        ({"memory": {"limit": "1G"}}, ("'1G'", "whole number")),
        ({"memory": {"limit": True}}, ("True",)),
        ({"memory": 5}, ("memory", "5")),
        ({"cpu": {"quota": 400_001}}, ("5 vCPUs", "4", "vm.max_cpus")),
        ({"cpu": {"quota": 999}}, ("999", "1000")),
        ({"cpu": {"quota": -2}}, ("-2",)),
        ({"cpu": {"quota": 1.5}}, ("1.5", "whole number")),
        ({"cpu": {"period": 999}}, ("999",)),
        ({"cpu": {"period": 1_000_001}}, ("1000001", "1000000")),
    ],
)
def test_what_means_nothing_is_refused(update: Json, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError) as caught:
        _decide(update)
    for word in words:
        assert word in str(caught.value)


def test_more_than_this_machine_has_room_for_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"2048 MiB is more than this machine can have, 1024 MiB"):
        _decide(_GROW_MEMORY, room_mib=1024)
    assert _decide({"memory": {"limit": -1}}, size=Size(1, 256), room_mib=300).after.memory_mib == 300


_NUMBERS = st.none() | st.integers(-10, 2**63)


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS), max_size=5))
def test_a_machine_is_never_smaller_than_the_limits_in_force(updates: list[tuple[int | None, ...]]) -> None:
    in_force, size = dict(_IN_FORCE), _SIZE
    for limit, quota, period in updates:
        cpu: dict[str, JsonValue] = {"quota": quota, "period": period}
        try:
            change = _decide({"memory": {"limit": limit}, "cpu": cpu}, in_force, size)
        except SpecError:
            continue
        in_force, size = change.in_force, change.after
    assert 1 <= size.cpus <= _BOUNDS.max_cpus
    memory = in_force["memory"]
    assert isinstance(memory, dict)
    assert isinstance(memory["limit"], int)
    if 0 < memory["limit"] < 1 << 60:
        assert memory["limit"] <= size.memory_mib * _MIB


def _any(value: object, type_url: str = _TYPE) -> Any:
    return Any(type_url=type_url, value=value if isinstance(value, bytes) else json.dumps(value).encode())


def test_the_resources_of_a_request() -> None:
    assert read(_any({"cpu": {"quota": 5}})) == {"cpu": {"quota": 5}}
    assert read(_any({}, f"prefix/{_TYPE}")) == {}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Any(), "nothing"),
        (_any({}, "types.containerd.io/opencontainers/runtime-spec/1/WindowsResources"), "WindowsResources"),
        (_any(b"{"), "not JSON"),
        (_any([]), "not an object"),
    ],
)
def test_other_resources_are_refused(request_: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read(request_)
