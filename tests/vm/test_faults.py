"""What is killed while a container runs takes everything of that container with it, and says so."""

import re

import pytest

from harness.box import Box
from harness.messages import assert_one_clear_line

_GONE_DEADLINE_S = 20.0


@pytest.mark.every_containerd
@pytest.mark.keeps_image
def test_kill_of_the_shim(box: Box) -> None:
    """containerd runs `delete`, which answers 137; the machine is gone with all that belonged to it."""
    container = box.start("sleep", "1000")
    assert box.lose(container, box.shim(container), _GONE_DEADLINE_S) == 137


@pytest.mark.every_containerd
@pytest.mark.keeps_image
def test_kill_of_qemu(vm: Box) -> None:
    container = vm.start("sleep", "1000")
    assert vm.lose(container, vm.processes("qemu-system-x86_64")[0], _GONE_DEADLINE_S) == 137


@pytest.mark.keeps_image
def test_kill_of_the_vsock_daemon(vm: Box) -> None:
    """Without it the guest cannot be reached any more: the container is lost, not stuck."""
    with vm.qemubox.changed({"vsock": {"mode": "user"}}):
        container = vm.start("sleep", "1000")
        assert vm.lose(container, vm.processes("vhost-device-vsock", "--vm")[0], _GONE_DEADLINE_S) == 137


@pytest.mark.keeps_image
def test_a_client_in_the_foreground_sees_the_loss_of_qemu(vm: Box) -> None:
    with vm.running("sh", "-c", "echo ready; sleep 1000") as ctr:
        assert ctr.stdout is not None
        assert ctr.stdout.read(6) == b"ready\n"
        vm.processes("qemu-system-x86_64")[0].kill()
        assert ctr.wait(_GONE_DEADLINE_S) == 137


@pytest.mark.keeps_image
def test_a_panic_of_the_guest_kernel(vm: Box) -> None:
    """A container that may makes its own kernel panic: it ends, no other machine takes its place (trap U4)."""
    command = "mount -o remount,rw /proc/sys; echo 2 > /proc/sys/vm/panic_on_oom; head -c 400m /dev/zero | tail"
    options = ("--cap-add", "CAP_SYS_ADMIN", "--memory-limit", str(64 << 20))
    offset = vm.containerd.log_size()
    assert vm.run("sh", "-c", command, options=options, deadline_s=40).code == 137
    log = vm.containerd.log_tail(offset, limit=1 << 20)
    assert re.search(
        r"level=error msg=\"the guest's kernel panicked\" console=.*Kernel panic - not syncing: Out of memory", log
    )


def test_a_machine_that_stands_still_is_said_to(vm: Box) -> None:
    """It answers nothing, and `kill` says so within its deadline; once the machine goes on, all is as before."""
    container = vm.start("sleep", "1000")
    qemu = vm.processes("qemu-system-x86_64")[0]
    qemu.suspend()
    assert_one_clear_line(vm.kill(container, "TERM"), "guest|machine", "answer|within")
    qemu.resume()
    vm.kill(container).checked()
    vm.wait_stopped(container)
    vm.delete_task(container)
    vm.remove(container).checked()


@pytest.mark.keeps_image
def test_sigkill_ends_a_machine_that_stands_still(vm: Box) -> None:
    container = vm.start("sleep", "1000")
    vm.processes("qemu-system-x86_64")[0].suspend()
    vm.kill(container).checked()
    vm.wait_stopped(container)
    assert "non-zero exit code 137" in vm.delete_task(container).error
    vm.remove(container).checked()


@pytest.mark.keeps_image
def test_the_same_id_runs_again_after_a_loss(box: Box) -> None:
    container = box.start("sleep", "1000")
    box.lose(container, box.shim(container), _GONE_DEADLINE_S)
    assert box.run("echo", "again", container=container).text == "again"
