"""What the shim and the guest say, where, how much, and what they never say."""

import secrets

import pytest

from harness.box import Box
from harness.qemubox import Sections

_DEBUG: Sections = {"log": {"level": "debug"}, "vm": {"kernel_args": "loglevel=8"}}


def _end(box: Box, container: str) -> None:
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container).checked()
    box.remove(container).checked()


def test_nothing_of_the_environment_is_logged(vm: Box) -> None:
    """At the level that says most, and with all of the guest's lines on the console."""
    secret, further = secrets.token_hex(8), secrets.token_hex(8)
    offset = vm.containerd.log_size()
    with vm.qemubox.changed(_DEBUG):
        container = vm.start("sleep", "100", options=("--null-io", "--env", f"TOKEN={secret}"))
        # One exec that runs, and one that cannot.
        environment = ("--exec-id", "x", container, "env", f"TOKEN={further}")
        vm.containerd.ctr("tasks", "exec", *environment, "true").checked()
        assert vm.containerd.ctr("tasks", "exec", *environment, "/no/such/program").code != 0
        (console,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/console")
        said = console.read_bytes()
        _end(vm, container)
    assert b"vminitd: created" in said  # it does say something
    log = vm.containerd.log_tail(offset, limit=1 << 22)
    assert "guest configured" in log
    assert secret not in log
    assert secret.encode() not in said
    assert further not in log
    assert further.encode() not in said


@pytest.mark.every_containerd
def test_the_log_goes_on_after_a_restart_of_containerd(vm: Box) -> None:
    container = vm.start("sleep", "100")
    vm.containerd.stop()
    vm.containerd.start()
    offset = vm.containerd.log_size()
    assert vm.containerd.ctr("tasks", "exec", "--exec-id", "x", container, "/no/such/program").code != 0
    log = vm.containerd.log_tail(offset, limit=1 << 20)
    assert any("call failed" in line and f"id={container}" in line for line in log.splitlines()), log
    _end(vm, container)


def test_what_is_not_worth_a_warning_is_not_said_where_only_warnings_are_wanted(vm: Box) -> None:
    """A level that is set is in force where containerd is not at debug, and in the guest, too."""
    offset = vm.containerd.log_size()
    with vm.qemubox.changed({**_DEBUG, "log": {"level": "warning"}}):
        container = vm.start("sleep", "100")
        (console,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/console")
        said = console.read_bytes()
        _end(vm, container)
    assert "boot timeline" not in vm.containerd.log_tail(offset, limit=1 << 20)
    # Its level comes with the first call; what it said before that is there.
    assert b"vminitd: connected" in said
    assert b"vminitd: created" not in said
