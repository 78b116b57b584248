"""containerd's events: all of them, once, in order, also for the shortest process."""

import pytest

from harness.box import Box


@pytest.mark.parametrize("command", [("true",), ("sh", "-c", "sleep 0.3; exit 9")])
def test_create_start_exit(box: Box, command: tuple[str, ...]) -> None:
    container = box.new_id()
    with box.events() as events:
        status = box.run(*command, container=container).code
        events.wait("/tasks/exit", container)
        assert events.topics(container)[:3] == ["/tasks/create", "/tasks/start", "/tasks/exit"]
        create, start, end = (event.fields for event in events.of(container)[:3])
    assert start["pid"] == create["pid"] == end["pid"]
    assert end["id"] == container
    assert end.get("exit_status", 0) == status
    assert container in str(create["bundle"])


def test_delete_comes_last_and_says_the_same(vm: Box) -> None:
    """runc's shim of containerd 2.3.4 often ends before it has sent this one (trap 7): ours must not."""
    container = vm.new_id()
    with vm.events() as events:
        vm.run("sh", "-c", "exit 9", container=container)
        delete = events.wait("/tasks/delete", container, deadline_s=10).fields
        assert events.topics(container) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
        end = events.wait("/tasks/exit", container).fields
    assert (delete["pid"], delete["exit_status"], delete["exited_at"]) == (end["pid"], 9, end["exited_at"])


def test_the_task_s_pid_lives_as_long_as_the_task(box: Box) -> None:
    """Clients look at /proc/PID: hooks, inspect, stats, cp."""
    with box.events() as events:
        container = box.start("sleep", "1000")
        pid = box.task_pid(container)
        assert any(process.pid == pid for process in box.containerd.cell.processes())
        box.kill(container).checked()
        events.wait("/tasks/exit", container)
        box.delete_task(container).checked()
        box.remove(container).checked()
    assert not any(process.pid == pid for process in box.containerd.cell.processes())
