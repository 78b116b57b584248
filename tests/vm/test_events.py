"""containerd's events: all of them, once, in order, also for the shortest process."""

import datetime
import os
import signal

import pytest

from harness.box import Box
from harness.images import BUSYBOX


@pytest.mark.every_containerd
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


@pytest.mark.every_containerd
def test_delete_comes_last_and_says_the_same(vm: Box) -> None:
    """runc's shim of containerd 2.3.4 often ends before it has sent this one (trap 7): ours must not."""
    container = vm.new_id()
    with vm.events() as events:
        vm.run("sh", "-c", "exit 9", container=container)
        delete = events.wait("/tasks/delete", container, deadline_s=10).fields
        assert events.topics(container) == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
        end = events.wait("/tasks/exit", container).fields
    assert (delete["pid"], delete["exit_status"], delete["exited_at"]) == (end["pid"], 9, end["exited_at"])


def test_all_there_are_in_a_whole_life(vm: Box) -> None:
    """Each once, in this order; what is told of a process stands between its beginning and its end."""
    with vm.events() as events:
        container = vm.start("sleep", "1000", options=("--null-io", "--memory-limit", str(64 << 20)))
        ctr = vm.containerd.ctr
        ctr("tasks", "exec", "--exec-id", "quick", container, "true").checked()
        ctr("tasks", "pause", container).checked()
        ctr("tasks", "resume", container).checked()
        hungry = ("sh", "-c", "head -c 400m /dev/zero | exec tail")
        assert ctr("tasks", "exec", "--exec-id", "hungry", container, *hungry).code == 137
        vm.kill(container).checked()
        vm.wait_stopped(container)
        vm.delete_task(container)
        vm.remove(container).checked()
        events.wait("/tasks/delete", container)
        told = [
            (event.topic, event.fields.get("exec_id", event.fields.get("id", ""))) for event in events.of(container)
        ]
    assert told == [
        ("/tasks/create", ""),
        ("/tasks/start", ""),
        ("/tasks/exec-added", "quick"),
        ("/tasks/exec-started", "quick"),
        ("/tasks/exit", "quick"),
        ("/tasks/paused", ""),
        ("/tasks/resumed", ""),
        ("/tasks/exec-added", "hungry"),
        ("/tasks/exec-started", "hungry"),
        ("/tasks/oom", ""),
        ("/tasks/exit", "hungry"),
        ("/tasks/exit", container),
        ("/tasks/delete", container),
    ]


def test_the_task_s_pid_lives_as_long_as_the_task(box: Box) -> None:
    """Clients look at /proc/PID: hooks, inspect, stats, cp."""
    with box.events() as events:
        container = box.start("sleep", "1000")
        pid = box.task_pid(container)
        assert any(process.pid == pid for process in box.containerd.cell.processes())
        box.kill(container).checked()
        events.wait("/tasks/exit", container)
        # Gone as soon as the end is told, and not with the container only.
        assert not any(process.pid == pid for process in box.containerd.cell.processes())
        assert "137" in box.delete_task(container).error
        box.remove(container).checked()


def test_whoever_kills_the_pid_kills_the_task(box: Box) -> None:
    with box.events() as events:
        container = box.start("sleep", "1000")
        os.kill(box.task_pid(container), signal.SIGKILL)
        assert events.wait("/tasks/exit", container).fields["exit_status"] == 137
        box.delete_task(container)
        box.remove(container).checked()


def test_the_time_inside_is_the_host_s(box: Box) -> None:
    """A clone's clock goes on from when its template stood still, and is set before the first process runs."""
    container = box.new_id()
    script = "while :; do touch /now; stat -c %y /now; done"
    with box.containerd.running(box.run_arguments(container, ["sh", "-c", script], ["--rm"], BUSYBOX)) as ctr:
        assert ctr.stdout is not None
        late: list[float] = []
        # The quickest of the lines; on a busy host it may take some until one is.
        while len(late) < 20 or (min(late) > 0.05 and len(late) < 500):
            line = ctr.stdout.readline().decode()
            late.append((datetime.datetime.now(datetime.UTC) - _time(line)).total_seconds())
        box.kill(container).checked()
        assert ctr.wait(60) == 137
    # The clock of files ticks each hundredth of a second; a line takes its time on its way where all is busy.
    assert -0.02 <= min(late) <= 0.25


def _time(text: str) -> datetime.datetime:
    """What stat(1) says, to the microsecond."""
    return datetime.datetime.fromisoformat(f"{text[:26]}+00:00")
