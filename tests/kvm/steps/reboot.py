"""The host is rebooted with a container running; everything is as before it, and nothing of the old boot is left."""

import json

import pytest

from tests.kvm.harness.host import Host
from tests.kvm.steps.containers import GATEWAY, state

_REBOOTED = pytest.mark.needs("test_reboot_with_a_container_running")


class Reboot:
    """`box` of the steps before runs when it comes."""

    @pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")
    def test_reboot_with_a_container_running(self, host: Host) -> None:
        host.times.record("reboot", host.machine.reboot())
        host.mount_data()
        host.wait_for("systemctl is-system-running | grep -Eqx 'running|degraded'", "systemd's end of its boot", 300)
        assert host.failed_units() == ""

    @_REBOOTED
    def test_services_are_up(self, host: Host) -> None:
        active = host.output(f"systemctl is-active qemubox.service {host.suite.containerd}")
        assert active.splitlines() == ["active", "active"]

    @_REBOOTED
    def test_template_is_there_again(self, host: Host) -> None:
        """That of before or, where the host is not quite what it was, one that qemubox-template.service has made."""
        templates = json.loads(host.output("qemubox template list --json"))
        assert [each["problem"] for each in templates] == [""]

    @_REBOOTED
    def test_container_of_the_old_boot_is_gone_and_can_be_removed(self, host: Host) -> None:
        assert state(host, "box") in ("", "STOPPED")
        host.ctr("task rm box", check=False)
        host.ctr("container rm box")

    @_REBOOTED
    def test_containers_start_as_clones(self, host: Host) -> None:
        host.start("again")
        found = host.inspect("again")
        assert (found["memory"], found["accelerator"], found["link"]) == ("private", "kvm", "kernel")
        assert "1 packets received" in host.exec("again", f"ping -c 1 -W 20 {GATEWAY}")
        host.remove("again")

    @pytest.mark.needs("test_containers_start_as_clones")
    def test_nothing_is_left_of_containers(self, host: Host) -> None:
        assert host.output("qemubox ps --quiet") == ""
        assert host.output("ls /run/qemubox/vm 2>/dev/null || true") == ""
        assert host.output("ip netns list") == ""
        assert host.output("ip -o link show type veth") == ""
        leases = "find /var/lib/cni/networks/qemubox -name '10.*' -o -name 'fd71*' 2>/dev/null || true"
        assert host.output(leases) == ""
        assert host.output("pgrep -fl '[q]emubox-anchor|[q]emu-system|[v]irtiofsd' || true") == ""
