"""A machine grows and shrinks while its container runs: what Update does, seen inside and on the host."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.inside import CGROUP, inside
from harness.messages import assert_one_clear_line
from shim.sizing import plugged_mib

pytestmark = pytest.mark.timeout(240)

MIB = 1 << 20
_LIMITS = ("--memory-limit", str(256 * MIB), "--cpus", "1")
_ANSWER_DEADLINE_S = 60.0
# A tmpfs takes exactly what is written to it, and keeps it. Its pages are the container's, as those of processes are.
_MEMORY = ("--mount", "type=tmpfs,src=tmpfs,dst=/memory,options=size=16g")
_SMALL = (*_MEMORY, *_LIMITS)
_FILL = "dd if=/dev/zero of=/memory/filled bs=1M count={mib} 2>/dev/null"


def resident_mib(vm: Box) -> int:
    """What the machine's QEMU has of the host's memory."""
    status = Path(f"/proc/{vm.processes('qemu-system-x86_64')[0].pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def resized(total_mib: int, before_mib: int, after_mib: int) -> object:
    """What `free` shows when one limit has become the other, on a machine that showed `total_mib` before."""
    return pytest.approx(total_mib + plugged_mib(after_mib) - plugged_mib(before_mib), abs=2)


def memory(mib: int) -> dict[str, int]:
    return {"limit": mib * MIB}


def test_memory_grows_is_there_to_use_and_goes_back_to_the_host(vm: Box) -> None:
    with inside(vm, *_SMALL) as container:
        small_mib = container.total_mib
        assert 256 < small_mib < 256 + 128
        container.update(memory=memory(1024))
        assert container.total_mib == resized(small_mib, 256, 1024)
        assert container.do(_FILL.format(mib=700))[0] == 0
        full_mib = resident_mib(vm)
        container.do("rm /memory/filled")
        container.update(memory=memory(256))
        assert container.total_mib == small_mib
        assert resident_mib(vm) < full_mib - 500
        assert container.do(_FILL.format(mib=200))[0] == 0


@pytest.mark.release
def test_what_the_container_frees_goes_back_to_the_host_by_itself(vm: Box) -> None:
    """The guest's kernel reports free pages some seconds later, in pieces; no update has a part in it."""
    with inside(vm, *_MEMORY, "--memory-limit", str(512 * MIB)) as container:
        assert container.do(_FILL.format(mib=300))[0] == 0
        full_mib = resident_mib(vm)
        container.do("rm /memory/filled")
        eventually(lambda: resident_mib(vm) < full_mib - 150, f"QEMU has less than {full_mib - 150} MiB", 60)


def test_processors_come_and_go(vm: Box) -> None:
    with vm.qemubox.changed({"vm": {"max_cpus": 3}}), inside(vm, *_SMALL) as container:
        assert container.cpus == 1
        for quota, cpus in ((200_000, 2), (250_000, 3), (100_000, 1), (300_000, 3)):
            container.update(cpu={"quota": quota, "period": 100_000})
            assert container.cpus == cpus
            assert container.do(f"cat {CGROUP}/cpu.max")[1] == f"{quota} 100000"


@pytest.mark.release
def test_an_update_that_names_one_leaves_the_other(vm: Box) -> None:
    with vm.qemubox.changed({"vm": {"max_cpus": 2}}), inside(vm, *_SMALL) as container:
        total_mib = container.total_mib
        container.update(cpu={"quota": 150_000})
        assert (container.cpus, container.total_mib) == (2, total_mib)
        container.update(memory=memory(384))
        assert (container.cpus, container.total_mib) == (2, resized(total_mib, 256, 384))
        container.update(cpu={"shares": 512}, pids={"limit": 50})
        assert (container.cpus, container.total_mib) == (2, resized(total_mib, 256, 384))
        assert container.do(f"cat {CGROUP}/pids.max")[1] == "50"


def test_what_cannot_be_is_refused_and_changes_nothing(vm: Box) -> None:
    with (
        vm.qemubox.changed({"vm": {"max_cpus": 2, "max_memory_mib": 2048}}),
        inside(vm, *_SMALL) as container,
    ):
        before = (container.total_mib, container.cpus, container.do(f"cat {CGROUP}/memory.max {CGROUP}/cpu.max"))
        for resources, words in (
            ({"memory": memory(2049)}, ("2049 MiB", "2048 MiB", r"vm\.max_memory_mib")),
            ({"memory": {"limit": -5}}, ("-5",)),
            ({"memory": {"limit": "much"}}, ("much", "whole number")),
            ({"cpu": {"quota": 200_001}}, ("3 vCPUs", "2", r"vm\.max_cpus")),
            ({"cpu": {"quota": 100}}, ("quota", "100")),
            ({"cpu": {"period": 5}}, ("period", "5")),
            ({"memory": memory(512), "cpu": {"quota": 900_000}}, ("9 vCPUs",)),
        ):
            assert_one_clear_line(vm.containerd.update(container.container, resources), *words)
        assert before == (
            container.total_mib,
            container.cpus,
            container.do(f"cat {CGROUP}/memory.max {CGROUP}/cpu.max"),
        )


@pytest.mark.release
def test_a_limit_below_what_is_in_use_is_refused_and_caches_are_no_use(vm: Box) -> None:
    """The numbers are told, nobody is killed, and what the container reads from its disk does not count."""
    with inside(vm, *_MEMORY, "--memory-limit", str(512 * MIB)) as container:
        total_mib = container.total_mib
        assert container.do(_FILL.format(mib=300))[0] == 0
        refused = vm.containerd.update(container.container, {"memory": memory(256)})
        assert_one_clear_line(refused, r"uses 3\d\d\.\d MiB", r"limited to 256\.0 MiB", "FAILED_PRECONDITION")
        assert container.total_mib == total_mib
        assert container.do(f"cat {CGROUP}/memory.max {CGROUP}/memory.high")[1].split() == [str(512 * MIB), "max"]
        assert container.do("rm /memory/filled; head -c 300m /dev/zero >/file; cat /file >/dev/null")[0] == 0
        container.update(memory=memory(256))
        assert container.total_mib == resized(total_mib, 512, 256)


@pytest.mark.release
def test_a_guest_that_gives_nothing_back_is_told_of_and_stays_as_it_was(vm: Box) -> None:
    """Its kernel is told not to unplug what is online. Growing works all the same, and so does the next update."""
    with (
        vm.qemubox.changed({"vm": {"kernel_args": "virtio_mem.unplug_online=0"}}),
        inside(vm, *_SMALL) as container,
    ):
        total_mib = container.total_mib
        container.update(memory=memory(512))
        failed = vm.containerd.update(container.container, {"memory": memory(256)})
        assert_one_clear_line(failed, "gave back 0 of 260 MiB", "DEADLINE_EXCEEDED")
        assert container.total_mib == resized(total_mib, 256, 512)
        assert container.do(f"cat {CGROUP}/memory.max")[1] == str(512 * MIB)
        container.update(memory=memory(640))
        assert container.total_mib == resized(total_mib, 256, 640)


@pytest.mark.release
def test_two_updates_at_once_are_done_one_after_the_other(vm: Box) -> None:
    with inside(vm, *_SMALL) as container:
        total_mib = container.total_mib
        updates = [{"memory": memory(mib)} for mib in (512, 1024)]
        with ExitStack() as stack:
            running = [
                stack.enter_context(vm.containerd.updating(container.container, resources)) for resources in updates
            ]
            assert [update.wait(_ANSWER_DEADLINE_S) for update in running] == [0, 0]
        limit_mib = container.number(f"cat {CGROUP}/memory.max") // MIB
        assert limit_mib in (512, 1024)
        assert container.total_mib == resized(total_mib, 256, limit_mib)


def test_a_created_container_can_be_updated_and_one_that_has_ended_cannot(box: Box) -> None:
    """As runc does it."""
    container = box.new_id()
    box.containerd.ctr(
        "containers", "create", "--runtime", RUNTIMES[box.runtime], *_LIMITS[:2], BUSYBOX, container, "sleep", "1000"
    ).checked()
    box.containerd.create_task(container).checked()
    assert box.status(container) == "CREATED"
    box.containerd.update(container, {"memory": memory(300)}).checked()
    box.kill(container).checked()
    box.wait_stopped(container)
    refused = box.containerd.update(container, {"memory": memory(256)})
    assert refused.code == 1
    assert "stopped" in refused.error
    box.delete_task(container)
    box.remove(container).checked()


@pytest.mark.parametrize("mib", [512, pytest.param(2048, marks=pytest.mark.release)])
def test_all_of_the_limit_is_there_for_the_first_act(vm: Box, mib: int) -> None:
    """A program that takes at once all that its limit promises is not killed for what is still on its way."""
    command = f"{_FILL.format(mib=mib - 24)} && free -m | awk '/^Mem:/ {{ print $2 }}'"
    result = vm.run("sh", "-c", command, options=(*_MEMORY, "--memory-limit", str(mib * MIB)), deadline_s=120)
    assert result.code == 0, result.error
    assert int(result.text) >= mib
