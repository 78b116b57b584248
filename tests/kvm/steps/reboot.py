"""The host is rebooted with a container running; everything is as before it, and nothing of the old boot is left."""

import json
import shlex
from typing import Final

import pytest

from tests.kvm.harness.host import CONTAINER_DEADLINE_S, IMAGE, RUNTIME, Host
from tests.kvm.steps.containers import GATEWAY, state

_AT_BOOT: Final = "lane-container.service"
# A container that the host starts by itself, as early as it can: docker does so with those that are always restarted.
_UNIT: Final = """[Unit]
After={containerd}
[Service]
Type=oneshot
ExecStart={ctr} run -d --runtime {runtime} {image} atboot sleep 100000
TimeoutStartSec={deadline_s:g}
[Install]
WantedBy=multi-user.target
"""
_REBOOTED = pytest.mark.needs("test_reboot_with_a_container_running")


class Reboot:
    """`box` of the steps before runs when it comes."""

    @pytest.mark.needs("test_machine_runs_with_kvm_as_a_clone")
    def test_reboot_with_a_container_running(self, host: Host) -> None:
        words = _UNIT.format(
            containerd=host.suite.containerd,
            ctr=host.suite.ctr,
            runtime=RUNTIME,
            image=IMAGE,
            deadline_s=CONTAINER_DEADLINE_S,
        )
        host.run(f"printf %s {shlex.quote(words)} >/etc/systemd/system/{_AT_BOOT} && systemctl enable {_AT_BOOT}")
        host.times.record("reboot", host.machine.reboot())
        host.mount_data()
        host.wait_for("systemctl is-system-running | grep -Eqx 'running|degraded'", "systemd's end of its boot", 300)
        assert host.failed_units() == ""

    @_REBOOTED
    def test_services_are_up(self, host: Host) -> None:
        active = host.output(f"systemctl is-active qemubox.service {host.suite.containerd}")
        assert active.splitlines() == ["active", "active"]

    @_REBOOTED
    def test_container_that_starts_at_boot_has_kvm(self, host: Host) -> None:
        """Though udev loads its module at the same time. Whether it is a clone depends on who came first."""
        found = host.inspect("atboot")
        assert (found["accelerator"], found["link"]) == ("kvm", "kernel")
        assert host.exec("atboot", "echo there") == "there"
        host.remove("atboot")
        host.run(f"systemctl disable {_AT_BOOT} && rm /etc/systemd/system/{_AT_BOOT} && systemctl daemon-reload")

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
