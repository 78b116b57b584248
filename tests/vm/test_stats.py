"""What a container uses, as `ctr task metrics` shows it: its cgroup in its machine, for both containerds."""

import json
import time
from dataclasses import dataclass

import pytest

from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.images import BUSYBOX

MIB = 1 << 20
_UNLIMITED = (1 << 64) - 1
_WORK_DEADLINE_S = 60.0
_IN_TIME_S = 10.0


@dataclass(frozen=True)
class Figures:
    """One look at a container."""

    document: dict[str, dict[str, object]]

    def number(self, part: str, name: str) -> int:
        """A figure; what is 0 is left out of the JSON."""
        found = self.document[part].get(name, 0)
        assert isinstance(found, int)
        return found

    @property
    def written(self) -> int:
        """Bytes that went to all disks."""
        usage = self.document["io"].get("usage", [])
        assert isinstance(usage, list)
        return sum(device.get("wbytes", 0) for device in usage)


def figures(vm: Box, container: str) -> Figures:
    """Of a container, whatever state it is in."""
    shown = vm.containerd.ctr("tasks", "metrics", "--format", "json", container).checked()
    return Figures(json.loads(shown.text))


def end(vm: Box, container: str) -> None:
    vm.kill(container)
    vm.wait_stopped(container)
    vm.delete_task(container).checked()
    vm.remove(container).checked()


@pytest.mark.every_containerd
def test_a_table_is_shown(vm: Box) -> None:
    container = vm.start("sleep", "1000")
    shown = vm.containerd.ctr("tasks", "metrics", container).checked().text
    rows = dict(words[:2] for line in shown.splitlines() if len(words := line.split()) > 1)
    assert rows["ID"] == "TIMESTAMP"
    assert rows["pids.current"] == "1"
    assert int(rows["cpu.usage_usec"]) > 0
    assert int(rows["memory.usage"]) > 0
    assert int(rows["memory.usage_limit"]) > 0
    end(vm, container)


def test_processor_time_grows_with_work(vm: Box) -> None:
    container = vm.start("sh", "-c", "sleep 1; while :; do :; done")
    idle = figures(vm, container)
    # A second of work of the processor's, by the guest's own clock.
    eventually(
        lambda: figures(vm, container).number("cpu", "usage_usec") > idle.number("cpu", "usage_usec") + 1_000_000,
        "a busy loop uses a second",
        _WORK_DEADLINE_S,
    )
    busy = figures(vm, container)
    assert busy.number("cpu", "user_usec") > idle.number("cpu", "user_usec")
    end(vm, container)


@pytest.mark.release
def test_memory_counts_what_is_allocated(vm: Box) -> None:
    script = "sleep 2; head -c 64m /dev/zero | tail | sleep 1000"
    container = vm.start("sh", "-c", script, options=("--null-io", "--memory-limit", str(256 * MIB)))
    before = figures(vm, container)
    assert before.number("memory", "usage_limit") == 256 * MIB
    assert 0 < before.number("memory", "usage") < 32 * MIB
    eventually(
        lambda: figures(vm, container).number("memory", "anon") > 60 * MIB, "64 MiB are allocated", _WORK_DEADLINE_S
    )
    after = figures(vm, container)
    assert 60 * MIB < after.number("memory", "usage") < 100 * MIB
    if vm.containerd.flavour.name != "1.6":  # which knows of no peak
        assert after.number("memory", "max_usage") >= 60 * MIB
    end(vm, container)


@pytest.mark.release
def test_processes_are_counted(vm: Box) -> None:
    container = vm.start("sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000 & wait")
    eventually(lambda: figures(vm, container).number("pids", "current") == 4, "a shell and three", _WORK_DEADLINE_S)
    assert figures(vm, container).number("pids", "limit") == _UNLIMITED
    end(vm, container)


@pytest.mark.release
def test_what_is_written_and_synced_is_counted(vm: Box) -> None:
    script = "sleep 2; dd if=/dev/zero of=/written bs=1M count=16; sync; sleep 1000"
    container = vm.start("sh", "-c", script)
    before = figures(vm, container)
    eventually(
        lambda: figures(vm, container).written >= before.written + 16 * MIB, "16 MiB are written", _WORK_DEADLINE_S
    )
    assert figures(vm, container).written < before.written + 32 * MIB
    end(vm, container)


def test_one_that_is_paused_has_figures_in_time(vm: Box) -> None:
    container = vm.start("sh", "-c", "while :; do :; done")
    vm.containerd.ctr("tasks", "pause", container).checked()
    begin = time.monotonic()
    paused = figures(vm, container)
    time.sleep(1)
    later = figures(vm, container)
    assert time.monotonic() - begin < _IN_TIME_S
    assert paused.number("pids", "current") == 1
    # It stands still.
    assert later.number("cpu", "user_usec") == pytest.approx(paused.number("cpu", "user_usec"), abs=20_000)
    vm.containerd.ctr("tasks", "resume", container).checked()
    end(vm, container)


def test_one_that_has_ended_still_has_figures(vm: Box) -> None:
    container = vm.start("sh", "-c", "sleep 1")
    vm.wait_stopped(container)
    ended = figures(vm, container)
    assert ended.number("pids", "current") == 0
    assert ended.number("cpu", "usage_usec") > 0
    vm.delete_task(container).checked()
    assert "not found" in vm.containerd.ctr("tasks", "metrics", container).error
    vm.remove(container).checked()


@pytest.mark.release
def test_one_that_is_created_has_figures(vm: Box) -> None:
    container = vm.new_id()
    runtime = ("--runtime", RUNTIMES[vm.runtime])
    vm.containerd.ctr("containers", "create", *runtime, BUSYBOX, container).checked()
    vm.containerd.create_task(container).checked()
    created = figures(vm, container)
    assert created.number("pids", "current") == 1
    assert created.number("memory", "usage") > 0
    vm.containerd.ctr("tasks", "delete", "-f", container).checked()
    vm.remove(container).checked()
