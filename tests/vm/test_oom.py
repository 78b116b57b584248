"""What the guest's kernel kills for want of memory: /tasks/oom, before the exit of what it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.box import Box
from harness.deadline import eventually

MIB = 1 << 20
_LIMITED = ("--null-io", "--memory-limit", str(64 * MIB))
# `tail` keeps in memory what has no line end.
_EAT = "head -c {mib}m /dev/zero | tail > /dev/null"
_EATS_ALONE = "exec tail /dev/zero"
_KILLED_DEADLINE_S = 90.0


@contextmanager
def running(box: Box, script: str, options: tuple[str, ...] = _LIMITED) -> Iterator[str]:
    """A container with a limit, removed at the end."""
    container = box.start("sh", "-c", script, options=options)
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def exec_in(box: Box, container: str, name: str, *command: str) -> tuple[int, str]:
    """Its status and what it printed."""
    done = box.containerd.ctr("tasks", "exec", "--exec-id", name, container, *command)
    return done.code, done.text


def assert_told(box: Box, topics: list[str]) -> None:
    """Of one kill, once, and before the first exit.

    Where the host has cgroup v1, runc's shim says it twice and more, or later: its eventfd and the exit race.
    """
    assert "/tasks/oom" in topics
    if box.is_vm:
        assert topics.count("/tasks/oom") == 1
        assert "/tasks/exit" not in topics[: topics.index("/tasks/oom")]


@pytest.mark.every_containerd
def test_the_first_process_is_killed(box: Box) -> None:
    with box.events() as events:
        container = box.new_id()
        status = box.run("sh", "-c", f"sleep 0.2; {_EATS_ALONE}", options=_LIMITED[1:], container=container).code
        events.wait("/tasks/exit", container)
        events.wait("/tasks/oom", container)
        topics = events.topics(container)
    assert status == 137
    assert topics[:2] == ["/tasks/create", "/tasks/start"]
    assert_told(box, topics)


def test_a_child_is_killed_and_the_container_lives_on(box: Box) -> None:
    with box.events() as events, running(box, f"sleep 2; {_EAT.format(mib=100)}; sleep 1000") as container:
        events.wait("/tasks/oom", container, _KILLED_DEADLINE_S)
        assert box.status(container) == "RUNNING"
        assert exec_in(box, container, "alive", "echo", "alive") == (0, "alive")
        assert_told(box, events.topics(container))


@pytest.mark.release
def test_an_exec_is_killed_and_the_container_lives_on(box: Box) -> None:
    with box.events() as events, running(box, "sleep 1000") as container:
        status, _ = exec_in(box, container, "greedy", "sh", "-c", _EATS_ALONE)
        assert status == 137
        events.wait("/tasks/exit", container)
        events.wait("/tasks/oom", container)
        assert_told(box, events.topics(container))
        assert exec_in(box, container, "alive", "echo", "alive") == (0, "alive")
        assert box.status(container) == "RUNNING"


@pytest.mark.release
@pytest.mark.timeout(180)
def test_one_event_for_each_kill(vm: Box) -> None:
    script = f"for n in 1 2 3; do sleep 2; {_EAT.format(mib=100)}; done; sleep 1000"
    with vm.events() as events, running(vm, script) as container:
        eventually(lambda: events.topics(container).count("/tasks/oom") == 3, "three are killed", _KILLED_DEADLINE_S)


def test_nothing_is_told_where_nobody_is_killed(vm: Box) -> None:
    """A container that is at its limit all the time, by files that can be written back and dropped."""
    script = "dd if=/dev/zero of=/written bs=1M count=200; sync; exit 3"
    with vm.events() as events:
        container = vm.new_id()
        status = vm.run("sh", "-c", script, options=_LIMITED[1:], container=container).code
        events.wait("/tasks/exit", container)
        assert (status, events.topics(container).count("/tasks/oom")) == (3, 0)


@pytest.mark.release
def test_processes_eat_all_memory_of_the_machine(vm: Box) -> None:
    """A container without a limit has all of it: the kernel kills in there, and nothing of the machine's own."""
    with vm.events() as events, running(vm, "sleep 2; tail /dev/zero; sleep 1000", ("--null-io",)) as container:
        events.wait("/tasks/oom", container, _KILLED_DEADLINE_S)
        assert exec_in(vm, container, "alive", "echo", "alive") == (0, "alive")
        assert vm.status(container) == "RUNNING"


@pytest.mark.release
def test_files_in_memory_eat_all_memory_of_the_machine(vm: Box) -> None:
    """Which killing a process does not give back; the machine lasts until its container's file systems go."""
    options = ("--mount", "type=tmpfs,src=tmpfs,dst=/memory,options=size=16g")
    begin = vm.containerd.log_size()
    with vm.events() as events:
        container = vm.new_id()
        status = vm.run("dd", "if=/dev/zero", "of=/memory/filled", "bs=1M", options=options, container=container).code
        events.wait("/tasks/exit", container)
        topics = events.topics(container)
    assert status == 137
    assert topics[:4] == ["/tasks/create", "/tasks/start", "/tasks/oom", "/tasks/exit"]
    log = vm.containerd.log_tail(begin)
    assert "panic" not in log
    assert "exit not seen" not in log
