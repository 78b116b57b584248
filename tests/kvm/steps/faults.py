"""What may not take containers along, and what may not leave anything: kills and restarts under systemd."""

import pytest

from tests.kvm.harness.host import Host
from tests.kvm.steps.containers import state

_NEEDS = pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")


class Faults:
    """`box` of the steps before goes on running."""

    @_NEEDS
    def test_kill_of_qemu_ends_its_container_alone(self, host: Host) -> None:
        host.start("victim")
        found = host.inspect("victim")
        host.run(f"kill -9 {found['qemu_pid']}")
        host.wait_until_stopped("victim")
        removed = host.ctr("task rm victim", check=False)
        assert removed.status in (0, 137), removed
        host.ctr("container rm victim")
        host.wait_for(f"[ ! -e /proc/{found['shim_pid']} ]", "the end of its shim")
        machines = host.output("qemubox ps --quiet").split()
        assert "box" in machines
        assert "victim" not in machines
        assert host.exec("box", "echo there") == "there"

    @_NEEDS
    def test_restart_of_containerd_leaves_containers(self, host: Host) -> None:
        before = host.inspect("box")["qemu_pid"]
        host.run(f"systemctl restart {host.suite.containerd}", 180)
        assert state(host, "box") == "RUNNING"
        assert host.exec("box", "echo there") == "there"
        assert host.inspect("box")["qemu_pid"] == before

    @_NEEDS
    def test_restart_of_the_service_leaves_containers(self, host: Host) -> None:
        before = host.inspect("box")["qemu_pid"]
        host.run("systemctl restart qemubox.service", 180)
        assert host.exec("box", "echo there") == "there"
        assert host.inspect("box")["qemu_pid"] == before
        assert host.run_container("after", "echo new").splitlines()[-1] == "new"
        assert host.failed_units() == ""
