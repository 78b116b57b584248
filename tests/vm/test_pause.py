"""`ctr tasks pause` and `resume`: the processes stand still, what they wrote is on the disk, all else answers."""

import itertools
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.box import RUNTIMES, Box
from harness.containerd import Result
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line

_DEADLINE_S = 60.0
# Writes down the machine's uptime again and again: a pause is a gap.
_TICK = 'while :; do cut -d" " -f1 /proc/uptime >>/ticks; sleep 0.02; done'


def _pause(box: Box, container: str) -> Result:
    return box.containerd.ctr("tasks", "pause", container)


def _resume(box: Box, container: str) -> Result:
    return box.containerd.ctr("tasks", "resume", container)


def _exec(box: Box, container: str, *command: str) -> Result:
    return box.containerd.ctr("tasks", "exec", "--exec-id", "e", container, *command, deadline_s=_DEADLINE_S)


@contextmanager
def _container(box: Box, script: str = _TICK) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before. It may be paused at the end, too."""
    container = box.start("sh", "-c", script)
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _gaps(box: Box, container: str) -> list[float]:
    """The seconds between one tick and the next."""
    ticks = [float(line) for line in _exec(box, container, "cat", "/ticks").checked().text.split()]
    return [after - before for before, after in itertools.pairwise(ticks)]


def test_its_processes_stand_still_and_go_on(box: Box) -> None:
    """The time goes on meanwhile, and is right afterwards."""
    with box.events() as events, _container(box) as container:
        _pause(box, container).checked()
        paused_at = time.monotonic()
        assert box.status(container) == "PAUSED"
        time_s = time.monotonic() - paused_at
        _resume(box, container).checked()
        assert box.status(container) == "RUNNING"
        assert max(_gaps(box, container)) >= time_s
        before = time.time()
        now = int(_exec(box, container, "date", "+%s").checked().text)
        assert before - 2 <= now <= time.time() + 2
        events.wait("/tasks/resumed", container)
        topics = [topic for topic in events.topics(container) if "exec" not in topic and "exit" not in topic]
        assert topics == ["/tasks/create", "/tasks/start", "/tasks/paused", "/tasks/resumed"]


def test_sigkill_ends_a_paused_container(box: Box) -> None:
    with _container(box) as container:
        _pause(box, container).checked()
        box.kill(container).checked()
        box.wait_stopped(container, deadline_s=10)
        assert "non-zero exit code 137" in box.delete_task(container).error


def test_what_was_written_before_is_on_the_host_s_disk(vm: Box) -> None:
    """In the file that takes the container's writes, whole, and without a journal to be replayed."""
    script = "seq 1 100000 >/before; mkdir /new; mv /before /new/name; echo ready >/new/ready; " + _TICK
    with _container(vm, script) as container:
        while _exec(vm, container, "cat", "/new/ready").code:
            pass
        _pause(vm, container).checked()
        (image,) = _writable_files(vm)
        wanted = "".join(f"{number}\n" for number in range(1, 100001)).encode()
        assert _debugfs(image, "cat /upper/new/name") == wanted
        assert b"needs_recovery" not in _debugfs(image, "features")
        before = image.stat().st_mtime_ns, _debugfs(image, "cat /upper/ticks")
        assert vm.status(container) == "PAUSED"
        assert (image.stat().st_mtime_ns, _debugfs(image, "cat /upper/ticks")) == before
        _resume(vm, container).checked()


def _writable_files(vm: Box) -> list[Path]:
    """The disks that the machine may write to."""
    qemu = vm.processes("qemu-system-x86_64")[0]
    found = {Path(file.path) for file in qemu.open_files() if file.path.startswith(str(vm.qemubox.data))}
    return sorted(found)


def _debugfs(image: Path, command: str) -> bytes:
    done = subprocess.run(["debugfs", "-R", command, str(image)], check=True, capture_output=True, timeout=_DEADLINE_S)
    return done.stdout


def test_what_is_refused(box: Box) -> None:
    container = box.new_id()
    box.containerd.ctr(
        "containers", "create", "--runtime", RUNTIMES[box.runtime], BUSYBOX, container, "sleep", "1000"
    ).checked()
    box.containerd.create_task(container).checked()
    assert "created" in _pause(box, container).error
    assert "created" in _resume(box, container).error
    box.kill(container).checked()
    box.wait_stopped(container)
    assert "stopped" in _pause(box, container).error
    assert "stopped" in _resume(box, container).error
    box.delete_task(container)
    box.remove(container).checked()


def test_one_clear_line(vm: Box) -> None:
    with _container(vm) as container:
        assert_one_clear_line(_resume(vm, container), "cannot resume", "it is running")
        _pause(vm, container).checked()
        assert_one_clear_line(_pause(vm, container), "cannot pause", "it is paused")
        assert_one_clear_line(_exec(vm, container, "true"), "cannot exec", "it is paused")
