"""A set of CPUs, and a limit of processes: at the start and by Update, in the machine and around it."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psutil
import pytest

from harness.box import RUNTIMES, Box
from harness.images import BUSYBOX
from harness.inside import CGROUP, Inside, inside
from harness.messages import assert_one_clear_line
from shim.cpuset import format_list

pytestmark = pytest.mark.timeout(240)

_CPUS = sorted(os.sched_getaffinity(0))
_ALL = ",".join(map(str, _CPUS))
_LAST = str(_CPUS[-1])
# One process becomes two, and these four, up to 128; whoever cannot be made ends the one that wanted it.
_BOMB = "(bomb() { [ $1 -gt 0 ] || exec sleep 2; bomb $(($1 - 1)) | bomb $(($1 - 1)) & }; bomb 7) 2>/dev/null"
# Until only the shell is left: it makes no process for that, which would be one too many.
_QUIET = "while read -r n <$G/pids.current; [ $n -gt 1 ]; do :; done"


def _bound(vm: Box) -> set[str]:
    """On which CPUs the threads of the machine's QEMU may run."""
    qemu = vm.processes("qemu-system-x86_64")[0]
    found = {frozenset(os.sched_getaffinity(thread.id)) for thread in qemu.threads()}
    return {",".join(map(str, sorted(cpus))) for cpus in found}


def _set(container: Inside) -> str:
    """The set in the container's own cgroup."""
    status, text = container.do(f"cat {CGROUP}/cpuset.cpus")
    assert status == 0, text
    return text


def test_two_cpus_at_least_are_needed_here() -> None:
    """What follows would show nothing otherwise."""
    assert len(_CPUS) > 1


def test_an_update_moves_the_machine_and_its_size_follows(vm: Box) -> None:
    with vm.qemubox.changed({"vm": {"max_cpus": 2}}), inside(vm) as container:
        assert (container.cpus, _bound(vm), _set(container)) == (1, {_ALL}, "")
        two = f"{_CPUS[0]},{_LAST}"
        container.update(cpu={"cpus": two})
        assert (container.cpus, _bound(vm), _set(container)) == (2, {two}, "0-1")
        container.update(cpu={"cpus": _LAST})
        assert (container.cpus, _bound(vm), _set(container)) == (1, {_LAST}, "0")
        container.update(cpu={"cpus": two, "quota": 100_000, "period": 100_000})
        assert (container.cpus, _bound(vm), _set(container)) == (1, {two}, "0")
        container.update(cpu={"quota": 150_000})
        assert (container.cpus, _bound(vm), _set(container)) == (2, {two}, "0-1")
        shown = vm.inspect(container.container)
        assert (shown["vcpus"], shown["host_cpus"]) == (2, format_list({_CPUS[0], _CPUS[-1]}))
        container.update(cpu={"shares": 512, "mems": "0"})
        assert (container.cpus, _bound(vm), _set(container)) == (2, {two}, "0-1")


@pytest.mark.on("2")
def test_a_container_starts_on_its_cpus(vm: Box) -> None:
    """`ctr` of containerd 1.6 has no such option."""
    with inside(vm, "--cpuset-cpus", _LAST, "--cpuset-mems", "0") as container:
        assert (container.cpus, _bound(vm), _set(container)) == (1, {_LAST}, "0")
    with inside(vm, "--cpuset-cpus", f"{_CPUS[0]},{_LAST}") as container:
        assert (container.cpus, _bound(vm), _set(container)) == (2, {f"{_CPUS[0]},{_LAST}"}, "0-1")
        assert container.number("nproc") == 2


@pytest.mark.on("2")
def test_a_start_on_a_cpu_that_is_not_there_is_refused(vm: Box) -> None:
    result = vm.run("true", options=("--cpuset-cpus", "0,4711"))
    assert_one_clear_line(result, "CPU set 0,4711 names 4711", "there are")
    result = vm.run("true", options=("--cpuset-mems", "0-1"))
    assert_one_clear_line(result, "memory nodes 0-1 names 1", "there are 0")


@pytest.mark.parametrize(
    ("cpu", "words"),
    [
        ({"cpus": "0-4711"}, "CPU set 0-4711 names 2-4711"),
        ({"cpus": "some"}, "cpus of linux.resources.cpu is 'some'"),
        ({"mems": "7"}, "memory nodes 7 names 7"),
    ],
)
def test_an_update_to_what_is_not_there_changes_nothing(vm: Box, cpu: dict[str, object], words: str) -> None:
    if "2-4711" in words:
        words = words.replace("2-", f"{_CPUS[-1] + 1}-")
    with inside(vm) as container:
        refused = vm.containerd.update(container.container, {"cpu": {**cpu, "shares": 7}})
        assert_one_clear_line(refused, words, "INVALID_ARGUMENT")
        assert (container.cpus, _bound(vm), _set(container)) == (1, {_ALL}, "")


@contextmanager
def _confined(vm: Box, cpus: set[int]) -> Iterator[None]:
    """containerd on these CPUs only, and with it what it starts."""
    containerd = psutil.Process(vm.containerd.pid)

    def confine(to: Collection[int]) -> None:
        for thread in containerd.threads():
            os.sched_setaffinity(thread.id, to)

    confine(cpus)
    try:
        yield
    finally:
        confine(_CPUS)


@pytest.mark.release
def test_what_containerd_may_not_use_no_container_may(vm: Box) -> None:
    first = _CPUS[0]
    with _confined(vm, {first}), inside(vm) as container:
        assert _bound(vm) == {str(first)}
        refused = vm.containerd.update(container.container, {"cpu": {"cpus": f"{first},{_LAST}"}})
        assert_one_clear_line(refused, f"names {_LAST}, which containerd may not use", f"there are {first}")
        container.update(cpu={"cpus": str(first)})
        assert _bound(vm) == {str(first)}


def test_runc_refuses_what_is_not_there_too(box: Box) -> None:
    container = box.start("sleep", "1000")
    for resources in ({"cpu": {"cpus": "4711"}}, {"cpu": {"mems": "7"}}, {"cpu": {"cpus": "some"}}):
        assert box.containerd.update(container, resources).code == 1
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


@pytest.mark.release
def test_a_fork_bomb_goes_as_far_as_the_limit(vm: Box) -> None:
    with inside(vm) as container:
        container.do(f"G={CGROUP}")
        for limit in (20, 40):
            container.update(pids={"limit": limit})
            assert container.do("cat $G/pids.max") == (0, str(limit))
            refused = container.number("sed -n 's/^max //p' $G/pids.events")
            container.do(f"{_BOMB}; {_QUIET}")
            assert container.number("sed -n 's/^max //p' $G/pids.events") > refused
            assert container.number("cat $G/pids.peak") == limit
        container.update(pids={"limit": -1})
        assert container.do("cat $G/pids.max") == (0, "max")


@pytest.mark.release
@pytest.mark.parametrize("state", ["created", "running", "paused"])
def test_limits_in_every_state_that_runc_takes_them_in(box: Box, state: str) -> None:
    container = box.new_id()
    box.containerd.ctr(
        "containers", "create", "--runtime", RUNTIMES[box.runtime], BUSYBOX, container, "sleep", "1000"
    ).checked()
    box.containerd.create_task(container).checked()
    if state != "created":
        box.containerd.start_task(container).checked()
    if state == "paused":
        box.containerd.ctr("tasks", "pause", container).checked()
    for resources in (
        {"cpu": {"cpus": _LAST, "mems": "0"}},
        {"cpu": {"quota": 50_000, "period": 100_000, "shares": 256}},
        {"memory": {"limit": 300 << 20}},
        {"pids": {"limit": 33}},
    ):
        box.containerd.update(container, resources).checked()
    assert box.status(container) == state.upper()
    box.kill(container)
    box.wait_stopped(container)
    assert "stopped" in box.containerd.update(container, {"pids": {"limit": 33}}).error
    box.delete_task(container)
    box.remove(container).checked()


@pytest.mark.release
def test_a_machine_ends_on_whatever_cpus_it_runs(vm: Box) -> None:
    """Its threads are bound, those of the shim are not."""
    with inside(vm) as container:
        container.update(cpu={"cpus": _LAST})
        shim = vm.shim(container.container)
        assert {tuple(sorted(psutil.Process(shim.pid).cpu_affinity() or ()))} == {tuple(_CPUS)}
