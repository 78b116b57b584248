"""`ctr tasks pause` and `resume`: the processes stand still, what they wrote is on the disk, all else answers."""

import itertools
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.box import RUNTIMES, Box
from harness.containerd import Result
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line
from harness.terminal import terminal

pytestmark = pytest.mark.timeout(150)

_DEADLINE_S = 60.0
# Longer than a machine under load ever stands still by itself.
_PAUSE_S = 4.0
# Writes down the machine's uptime again and again: a pause is a gap.
_TICK = 'while :; do cut -d" " -f1 /proc/uptime >>/ticks; sleep 0.02; done'


def _pause(box: Box, container: str) -> Result:
    return box.containerd.ctr("tasks", "pause", container)


def _resume(box: Box, container: str) -> Result:
    return box.containerd.ctr("tasks", "resume", container)


def _exec(box: Box, container: str, *command: str) -> Result:
    return box.containerd.ctr("tasks", "exec", "--exec-id", "e", container, *command, deadline_s=_DEADLINE_S)


@contextmanager
def _container(box: Box, script: str = _TICK, *options: str) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before. It may be paused at the end, too."""
    container = box.start("sh", "-c", script, options=("--null-io", *options))
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _gaps(box: Box, container: str) -> list[float]:
    """The seconds between one tick and the next."""
    ticks = [float(line) for line in _exec(box, container, "cat", "/ticks").checked().text.split()]
    return [after - before for before, after in itertools.pairwise(ticks)]


@pytest.mark.every_containerd
def test_its_processes_stand_still_and_go_on(box: Box) -> None:
    """The time goes on meanwhile, and is right afterwards."""
    with box.events() as events, _container(box) as container:
        ticked = eventually(lambda: len(_gaps(box, container)) or None, "it ticks", _DEADLINE_S)
        _pause(box, container).checked()
        paused_at = time.monotonic()
        while (paused_s := time.monotonic() - paused_at) < _PAUSE_S:
            assert box.status(container) == "PAUSED"
        _resume(box, container).checked()
        assert box.status(container) == "RUNNING"
        eventually(lambda: len(_gaps(box, container)) > ticked + 1, "it ticks again", _DEADLINE_S)
        gaps = _gaps(box, container)
        assert max(gaps) >= paused_s
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


@pytest.mark.release
@pytest.mark.parametrize("everyone", [False, True])
def test_sigkill_ends_one_that_has_to_write_at_its_end(vm: Box, everyone: bool) -> None:
    """The last one to close a file without a name removes it: on a frozen file system that would wait for ever."""
    with _container(vm, f"exec 3>/unnamed; rm /unnamed; head -c 20m /dev/zero >&3; {_TICK}") as container:
        eventually(lambda: _exec(vm, container, "test", "-s", "/ticks").code == 0, "it ticks", _DEADLINE_S)
        _pause(vm, container).checked()
        vm.containerd.signal(container, signal.SIGKILL, everyone=everyone).checked()
        vm.wait_stopped(container, deadline_s=10)
        assert "non-zero exit code 137" in vm.delete_task(container).error


def test_all_else_is_answered_meanwhile(box: Box) -> None:
    """In a second or so, with what runc answers; a signal is taken and arrives afterwards."""
    with box.events() as events, _container(box, "trap 'exit 17' TERM; echo >/ready; " + _TICK) as container:
        eventually(lambda: _exec(box, container, "test", "-e", "/ready").code == 0, "it is ready", _DEADLINE_S)
        with box.containerd.waiting(container, 1) as waiting:
            _pause(box, container).checked()
            began = time.monotonic()
            ctr = box.containerd.ctr
            assert str(box.task_pid(container)) in ctr("tasks", "ps", container).checked().text
            assert ctr("tasks", "metrics", container).checked().text
            assert "paused" in _exec(box, container, "true").error
            assert "paused" in _pause(box, container).error
            assert "must be stopped before deletion" in box.delete_task(container).error
            box.containerd.update(container, {"cpu": {"shares": 512}, "pids": {"limit": 50}}).checked()
            box.containerd.signal(container, 0, signal.SIGTERM).checked()
            assert box.status(container) == "PAUSED"
            assert time.monotonic() - began < 20
            _resume(box, container).checked()
            assert waiting.communicate(timeout=_DEADLINE_S)[0].split() == [b"waiting", b"17"]
        assert events.topics(container)[-3:] == ["/tasks/paused", "/tasks/resumed", "/tasks/exit"]


def test_an_exec_is_paused_with_its_container(box: Box) -> None:
    """It has its terminal, its input and its output; it can be killed; it goes on."""
    with _container(box) as container, terminal(24, 80) as client:
        script = "echo ready; read line; echo $line; stty size"
        arguments = ["tasks", "exec", "-t", "--exec-id", "t", container, "sh", "-c", script]
        with box.containerd.running(arguments, stdin=client.theirs, stdout=client.theirs) as ctr:
            client.read_until("ready", _DEADLINE_S)
            _pause(box, container).checked()
            client.resize(30, 90)
            ctr.send_signal(signal.SIGWINCH)
            client.type(b"a line\n")
            _resume(box, container).checked()
            assert "a line" in client.read_until("30 90", 30)
            assert ctr.wait(_DEADLINE_S) == 0
        arguments = ["tasks", "exec", "--exec-id", "k", container, "sh", "-c", "echo ready; exec sleep 1000"]
        with box.containerd.running(arguments) as ctr:
            assert ctr.stdout is not None
            assert ctr.stdout.read(6) == b"ready\n"
            _pause(box, container).checked()
            box.containerd.ctr("tasks", "kill", "-s", "SIGKILL", "--exec-id", "k", container).checked()
            assert box.status(container) == "PAUSED"
            _resume(box, container).checked()
            assert ctr.wait(_DEADLINE_S) == 137


@pytest.mark.release
def test_an_exec_that_is_killed_meanwhile_has_ended_and_its_container_stands_still(vm: Box) -> None:
    """At once, where runc needs the newer control groups for it; its client may delete it."""
    with _container(vm) as container:
        arguments = ["tasks", "exec", "--exec-id", "k", container, "sh", "-c", "echo ready; exec sleep 1000"]
        with vm.containerd.running(arguments) as ctr:
            assert ctr.stdout is not None
            assert ctr.stdout.read(6) == b"ready\n"
            _pause(vm, container).checked()
            vm.containerd.ctr("tasks", "kill", "-s", "SIGKILL", "--exec-id", "k", container).checked()
            assert ctr.wait(_DEADLINE_S) == 137
        assert vm.status(container) == "PAUSED"
        _resume(vm, container).checked()
        assert _exec(vm, container, "echo", "here").checked().text == "here"


@pytest.mark.release
def test_the_end_of_input_comes_through(box: Box) -> None:
    container = box.new_id()
    arguments = box.run_arguments(container, ["cat"], ["--rm"], BUSYBOX)
    with box.containerd.running(arguments, stdin=subprocess.PIPE) as ctr:
        assert ctr.stdin is not None
        assert ctr.stdout is not None
        ctr.stdin.write(b"one")
        assert ctr.stdout.read(3) == b"one"
        _pause(box, container).checked()
        ctr.stdin.write(b"two")
        ctr.stdin.close()
        assert box.status(container) == "PAUSED"
        _resume(box, container).checked()
        assert ctr.stdout.read() == b"two"
        assert ctr.wait(_DEADLINE_S) == 0


@pytest.mark.release
def test_again_and_again_while_it_writes(vm: Box) -> None:
    """Big writes, renames, syncs: each pause ends, and nothing is written during it."""
    script = "while :; do head -c 5m /dev/urandom >/a; mv /a /b; sync; date >>/ticks; done"
    with _container(vm, script) as container:
        for _ in range(5):
            _pause(vm, container).checked()
            (image,) = _writable_files(vm)
            before = image.stat()
            assert vm.status(container) == "PAUSED"
            after = image.stat()
            assert (after.st_mtime_ns, after.st_blocks) == (before.st_mtime_ns, before.st_blocks)
            assert b"needs_recovery" not in _debugfs(image, "features")
            _resume(vm, container).checked()
        assert vm.status(container) == "RUNNING"


@pytest.mark.release
def test_without_anything_to_write_to(vm: Box) -> None:
    with _container(vm, "while :; do sleep 0.1; done", "--read-only") as container:
        _pause(vm, container).checked()
        assert vm.status(container) == "PAUSED"
        _resume(vm, container).checked()
        assert _exec(vm, container, "echo", "here").checked().text == "here"


@pytest.mark.release
def test_a_pause_and_an_end_at_once(vm: Box) -> None:
    """Whoever is first: the container ends, once, and no call hangs."""
    for pause_first in (True, False):
        with vm.events() as events, _container(vm) as container, ThreadPoolExecutor(2) as pool:
            calls: list[Callable[[], Result]] = [lambda: _pause(vm, container), lambda: vm.kill(container)]
            done = [pool.submit(call) for call in (calls if pause_first else reversed(calls))]
            for each in done:
                each.result(_DEADLINE_S)
            vm.wait_stopped(container, deadline_s=20)
            events.wait("/tasks/exit", container)
            assert events.topics(container).count("/tasks/exit") == 1


@pytest.mark.keeps_image
@pytest.mark.parametrize(
    ("whose", "number"), [("qemu", signal.SIGKILL), ("shim", signal.SIGTERM), ("shim", signal.SIGKILL)]
)
def test_a_loss_while_it_is_paused(vm: Box, whose: str, number: int) -> None:
    with vm.events() as events, _container(vm) as container:
        _pause(vm, container).checked()
        victim = vm.shim(container) if whose == "shim" else vm.processes("qemu-system-x86_64")[0]
        victim.send_signal(number)
        assert events.wait("/tasks/exit", container, 20).fields["exit_status"] == 137
        vm.wait_stopped(container)


@pytest.mark.every_containerd
def test_a_restarted_containerd_finds_it_paused(box: Box) -> None:
    with _container(box) as container:
        _pause(box, container).checked()
        box.containerd.stop()
        box.containerd.start()
        assert box.status(container) == "PAUSED"
        _resume(box, container).checked()
        assert _exec(box, container, "echo", "more").checked().text == "more"


def test_a_machine_that_stands_still_is_not_half_paused(vm: Box) -> None:
    """The pause fails within its deadline; when the machine goes on, the container does."""
    with _container(vm) as container:
        eventually(lambda: _exec(vm, container, "cat", "/ticks").code == 0, "it ticks", _DEADLINE_S)
        qemu = vm.processes("qemu-system-x86_64")[0]
        qemu.suspend()
        began = time.monotonic()
        assert_one_clear_line(_pause(vm, container), "did not answer within 36 s")
        assert time.monotonic() - began < 55
        assert vm.status(container) == "RUNNING"
        qemu.resume()
        before = len(_gaps(vm, container))
        eventually(lambda: len(_gaps(vm, container)) > before, "it ticks", _DEADLINE_S)
        _pause(vm, container).checked()
        _resume(vm, container).checked()


def test_what_was_written_before_is_on_the_host_s_disk(vm: Box) -> None:
    """In the file that takes the container's writes, whole, and without a journal to be replayed."""
    script = "seq 1 100000 >/before; mkdir /new; mv /before /new/name; echo ready >/new/ready; " + _TICK
    with _container(vm, script) as container:
        eventually(lambda: _exec(vm, container, "cat", "/new/ready").code == 0, "it is ready", _DEADLINE_S)
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
