"""Faults while calls are under way: each call is answered in time, the exit is told once, and nothing is left.

And a guest that is hostile: its vminitd has faults, which execs of certain names call for (rogue_guest.py).
"""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.box import Box
from harness.containerd import Result
from harness.deadline import eventually
from harness.messages import assert_one_clear_line
from harness.rogue import rogue_image

pytestmark = pytest.mark.on("2")

_IN_TIME_S = 45.0
_EXIT_S = 60.0


@pytest.fixture(scope="module")
def image() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="qemubox-rogue-", dir="/var/tmp"))
    directory.chmod(0o711)
    yield rogue_image(directory)
    shutil.rmtree(directory)


@pytest.fixture
def rogue(vm: Box, image: Path) -> Iterator[Box]:
    """A box whose machines have that image."""
    with vm.qemubox.changed({"vm": {"image": str(image)}}):
        yield vm


def _exec(box: Box, container: str, name: str, *command: str, deadline_s: float = _IN_TIME_S) -> Result:
    arguments = ("tasks", "exec", "--exec-id", name, container, *command)
    return box.containerd.ctr(*arguments, deadline_s=deadline_s)


class _Calls:
    """`ctr` processes, each with a call under way."""

    def __init__(self, box: Box, container: str) -> None:
        self._box = box
        self._container = container
        self._stack = contextlib.ExitStack()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "_Calls":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, name: str, *arguments: str) -> None:
        process = self._box.containerd.running(["tasks", *arguments])
        self._running[name] = self._stack.enter_context(process)

    def begin_all(self) -> None:
        """An exec that runs and is waited for, and whatever else may be asked of a container."""
        container = self._container
        self.begin("wait", "exec", "--exec-id", "waits", container, "sleep", "1000")
        for number in range(3):
            self.begin(f"exec {number}", "exec", "--exec-id", f"starts{number}", container, "true")
        self.begin("stats", "metrics", container)
        self.begin("pids", "ps", container)
        self.begin("kill", "kill", "-s", "SIGCONT", container)

    def begin_changes(self) -> None:
        """And what changes it."""
        resources = {"cpu": {"shares": 512}}
        update = self._box.containerd.updating(self._container, resources)
        self._running["update"] = self._stack.enter_context(update)

    def all_answered(self, deadline_s: float) -> dict[str, int]:
        """Their statuses. Fails unless every one is answered by then."""
        end = time.monotonic() + deadline_s
        codes = {}
        for name, process in self._running.items():
            try:
                codes[name] = process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"{name} was not answered within {deadline_s:g} s") from None
        return codes


def _kill_qemu(box: Box, container: str) -> None:
    box.processes("qemu-system-x86_64")[0].kill()


def _kill_shim(box: Box, container: str) -> None:
    box.shim(container).kill()


def _demand(name: str) -> Callable[[Box, str], None]:
    """Have the guest do it; whether the exec is answered well does not matter."""

    def demand(box: Box, container: str) -> None:
        _exec(box, container, f"fault-{name}", "true")

    return demand


_FAULTS = {
    "qemu killed": _kill_qemu,
    "shim killed": _kill_shim,
    "vminitd gone": _demand("exit"),
    "garbage on the control connection": _demand("garbage"),
}


@pytest.mark.keeps_image
@pytest.mark.parametrize("fault", _FAULTS)
def test_the_machine_is_lost(rogue: Box, fault: str) -> None:
    container = rogue.start("sleep", "1000")
    shim = rogue.shim(container)
    with rogue.events() as events, _Calls(rogue, container) as calls:
        calls.begin_all()
        _running(rogue, container)
        calls.begin("late exec", "exec", "--exec-id", "late", container, "true")
        calls.begin_changes()
        if "killed" in fault:  # the others are called for by an exec, which does not start in a paused container
            calls.begin("pause", "pause", container)
        _FAULTS[fault](rogue, container)
        codes = calls.all_answered(_IN_TIME_S)
        assert codes["wait"] != 0
        assert events.wait("/tasks/exit", container, _EXIT_S)
        if fault != "shim killed":
            assert shim.is_running()
        rogue.wait_stopped(container)
        rogue.containerd.ctr("tasks", "delete", "-f", container)
        rogue.remove(container).checked()
        exits = [event for event in events.of(container) if event.topic == "/tasks/exit"]
    own = [event for event in exits if event.fields["id"] == container]
    assert [event.fields["exit_status"] for event in own] == [137]
    ids = [event.fields["id"] for event in exits]
    assert len(ids) == len(set(ids))


def _running(box: Box, container: str) -> None:
    """Return once the exec that is waited for is there."""
    listed = ("tasks", "ps", container)
    eventually(lambda: len(box.containerd.ctr(*listed).text.splitlines()) > 2, "the exec runs", _IN_TIME_S)


def test_twenty_seconds_of_standing_still(vm: Box) -> None:
    """Whoever has not given up is answered, and the clock inside is right: it is one that does not turn over."""
    container = vm.start("sleep", "1000")
    source = _exec(vm, container, "source", "cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource")
    assert source.checked().text in ("tsc", "kvm-clock")
    qemu = vm.processes("qemu-system-x86_64")[0]
    with vm.events() as events, _Calls(vm, container) as calls:
        calls.begin_all()
        _running(vm, container)
        qemu.suspend()
        try:
            calls.begin("late exec", "exec", "--exec-id", "late", container, "true")
            time.sleep(0.5)  # longer than the answer that somebody has just been given is given again
            calls.begin("late stats", "metrics", container)
            time.sleep(20)
            assert vm.status(container) == "RUNNING"
        finally:
            qemu.resume()
        before = time.time()
        now = int(_exec(vm, container, "clock", "date", "+%s").checked().text)
        assert before - 2 <= now <= time.time() + 2
        vm.containerd.ctr("tasks", "metrics", container).checked()
        vm.kill(container).checked()
        codes = calls.all_answered(_IN_TIME_S)
        assert codes["wait"] == 137
        assert codes["late stats"] != 0  # it had its deadline
        events.wait("/tasks/exit", container, _EXIT_S)
        vm.wait_stopped(container)
        assert "137" in vm.delete_task(container).error
        vm.remove(container).checked()
        first = [
            each for each in events.of(container) if each.topic == "/tasks/exit" and each.fields["id"] == container
        ]
    assert [event.fields["exit_status"] for event in first] == [137]


def test_crun_dies_in_the_guest(rogue: Box) -> None:
    """The exec that it was starting fails, with one clear line; the next one is as ever."""
    container = rogue.start("sleep", "1000")
    assert_one_clear_line(_exec(rogue, container, "fault-crun", "true"), "crun exec failed", "137")
    assert _exec(rogue, container, "next", "echo", "well").checked().text == "well"
    _end(rogue, container)


def test_a_guest_that_lies_about_an_exec(rogue: Box) -> None:
    """Its end is a failure, of now; what it tells of its use is refused or nothing; the container is as before."""
    container = rogue.start("sleep", "1000")
    with rogue.events() as events:
        assert _exec(rogue, container, "fault-lies", "true").code == 255
        exits = [event for event in events.of(container) if event.topic == "/tasks/exit"]
        assert [event.fields["exit_status"] for event in exits] == [255]
        assert len([event for event in events.of(container) if event.topic == "/tasks/oom"]) <= 1
    assert rogue.containerd.ctr("tasks", "metrics", container).code != 0  # containerd does not say why
    assert _exec(rogue, container, "next", "echo", "well").checked().text == "well"
    _end(rogue, container)


@pytest.mark.release
def test_a_guest_that_floods_its_control_connection(rogue: Box) -> None:
    """Calls are answered, and the shim does not grow."""
    container = rogue.start("sleep", "1000")
    shim = rogue.shim(container)
    _exec(rogue, container, "fault-flood", "true")
    time.sleep(1)
    before = shim.memory_info().rss
    time.sleep(3)
    assert shim.memory_info().rss - before < 16 << 20
    rogue.kill(container).checked()
    rogue.wait_stopped(container)
    rogue.delete_task(container)
    rogue.remove(container).checked()


@pytest.mark.keeps_image
def test_a_guest_that_falls_silent(rogue: Box) -> None:
    """SIGKILL ends it all the same."""
    container = rogue.start("sleep", "1000")
    with _Calls(rogue, container) as calls:
        calls.begin("silence", "exec", "--exec-id", "fault-silence", container, "true")
        eventually(lambda: _refuses(rogue, container), "it is silent", _IN_TIME_S)
        rogue.kill(container).checked()
        calls.all_answered(_IN_TIME_S)
    _gone(rogue, container)


def _refuses(box: Box, container: str) -> bool:
    return box.containerd.ctr("tasks", "metrics", container).code != 0


def _end(box: Box, container: str) -> None:
    box.kill(container).checked()
    _gone(box, container)


def _gone(box: Box, container: str) -> None:
    box.wait_stopped(container)
    assert "137" in box.delete_task(container).error
    box.remove(container).checked()


def test_a_container_has_no_way_to_the_shim(vm: Box) -> None:
    """Not even one that may make device nodes: neither the control port, nor a stream's, nor vsock can be opened."""
    script = """
        ls /dev | grep -E 'vport|vsock|hvc|virtio' && exit 11
        found=$(cat /sys/class/virtio-ports/*/dev /sys/class/misc/vsock/dev 2>/dev/null)
        [ -n "$found" ] || exit 12
        for number in $found; do
            mknod /node c ${number%:*} ${number#*:} || exit 13
            (: </node) 2>/dev/null && exit 14
            (: >/node) 2>/dev/null && exit 15
            rm /node
        done
        echo none
    """
    found = vm.run("sh", "-c", script, options=("--cap-add", "CAP_MKNOD", "--cap-add", "CAP_SYS_ADMIN"))
    assert (found.code, found.text) == (0, "none")
