"""A clean host, and the release on it, installed as a user would: at once, or over a container of the previous one."""

import json
from typing import ClassVar

import pytest

from tests.kvm.harness import listing
from tests.kvm.harness.data import PREVIOUS
from tests.kvm.harness.host import DATA, PREFIX, Host, Suite

UNPACK_DEADLINE_S = 400.0
# The copy of 300 MiB, a template, and a check with two boots: 90 s alone, many minutes where others use the machine.
INSTALL_DEADLINE_S = 900.0
_INSTALL = pytest.mark.timeout(UNPACK_DEADLINE_S + INSTALL_DEADLINE_S + 300)


def unpack_and_install(host: Host, archive: str) -> tuple[str, float]:
    """Unpack an archive of the data disk and run its installer: what it printed, and how many seconds it took."""
    host.run(f"cd /root && rm -rf qemubox-* && tar -xzf {DATA}/{archive}", UNPACK_DEADLINE_S)
    installed = host.run(
        f"cd /root/qemubox-*-linux-x86_64 && ./install.sh {host.suite.options} 2>&1", INSTALL_DEADLINE_S
    )
    host.run("rm -rf /root/qemubox-*")
    assert "0 failures" in installed.stdout  # the check at its end
    assert host.failed_units() == ""
    active = host.output(f"systemctl is-active qemubox.service {host.suite.containerd}")
    assert active.splitlines() == ["active", "active"]
    return installed.stdout, installed.seconds


def environment_of(host: Host, pid: object) -> str:
    """The directory of the Python environment that a shim's process has its code from."""
    return host.output(f"grep -o '{PREFIX}/lib/qemubox/venv-[^/]*' /proc/{pid}/maps | sort -u")


class Clean:
    """What the others begin with."""

    suite: ClassVar[Suite]

    @pytest.mark.timeout(3600)
    def test_host_is_clean_and_has_kvm(self, host: Host) -> None:
        host.run("udevadm settle --timeout=60")
        host.wait_for("systemctl is-system-running | grep -qx running", "systemd's end of its boot", 180)
        nodes = host.output("stat -c '%F' /dev/kvm /dev/vhost-vsock /dev/vhost-net")
        assert nodes.splitlines() == ["character special file"] * 3
        assert host.output("lsmod | grep -c '^kvm_amd '") == "1"
        if not self.suite.shim_only:
            words = "containerd runc ctr python3 qemu-system-x86_64 iptables mkfs.erofs virtiofsd gcc"
            missing = host.output(f"for word in {words}; do command -v $word || true; done")
            assert missing == ""
        host.kept["before"] = "\n".join(sorted(listing.take(host.machine)))


class Fresh:
    """This release on the clean host."""

    @pytest.mark.needs("test_host_is_clean_and_has_kvm")
    @_INSTALL
    def test_release_is_installed(self, host: Host) -> None:
        _, seconds = unpack_and_install(host, "release.tar.gz")
        host.times.record("install", seconds)
        host.ctr(f"image import {DATA}/busybox.tar")


class Upgrade:
    """The previous release on the clean host, and this one over it, under a container that runs."""

    @pytest.mark.needs("test_host_is_clean_and_has_kvm")
    @_INSTALL
    def test_previous_release_is_installed(self, host: Host) -> None:
        _, seconds = unpack_and_install(host, "previous.tar.gz")
        host.times.record("install", seconds)
        assert host.output("qemubox --version") == PREVIOUS
        host.ctr(f"image import {DATA}/busybox.tar")

    @pytest.mark.needs("test_previous_release_is_installed")
    def test_container_of_the_previous_release_runs(self, host: Host) -> None:
        host.start("old", "sh -c 'trap \"exit 7\" TERM; echo kept >/kept; while :; do sleep 1; done'")
        assert host.exec("old", "cat /kept") == "kept"
        host.kept["old environment"] = environment_of(host, host.inspect("old")["shim_pid"])
        assert host.kept["old environment"]

    @pytest.mark.needs("test_container_of_the_previous_release_runs")
    @_INSTALL
    def test_release_is_installed(self, host: Host) -> None:
        _, seconds = unpack_and_install(host, "release.tar.gz")
        host.times.record("upgrade", seconds)
        assert host.output("qemubox --version") != PREVIOUS

    @pytest.mark.needs("test_release_is_installed")
    def test_old_container_still_answers(self, host: Host) -> None:
        assert host.exec("old", "cat /kept") == "kept"
        assert environment_of(host, host.inspect("old")["shim_pid"]) == host.kept["old environment"]

    @pytest.mark.needs("test_release_is_installed")
    def test_new_container_is_of_the_new_code(self, host: Host) -> None:
        host.start("new")
        environment = environment_of(host, host.inspect("new")["shim_pid"])
        assert environment == host.output(f"readlink -f {PREFIX}/lib/qemubox/venv")
        assert environment != host.kept["old environment"]
        host.remove("new")

    @pytest.mark.needs("test_old_container_still_answers")
    def test_old_container_stops_by_itself(self, host: Host) -> None:
        host.ctr("task kill --signal SIGTERM old")
        host.wait_until_stopped("old")
        # ctr takes the container's exit status for its own, or warns of it (2.x).
        removed = host.ctr("task rm old", check=False)
        assert removed.status == 7 or (removed.status == 0 and "exit code 7" in removed.stderr), removed
        host.ctr("container rm old")
        assert "old" not in host.output("qemubox ps --quiet").split()


class Checked:
    """What the installation says of itself."""

    @pytest.mark.needs("test_release_is_installed")
    @pytest.mark.timeout(600)
    def test_check_finds_the_production_path(self, host: Host) -> None:
        done = host.run("qemubox check --json", 400)
        host.times.record("check", done.seconds)
        document = json.loads(done.stdout)
        assert [line for line in document["lines"] if line["status"] == "failure"] == []
        lines = {(line["area"], line["what"]): line for line in document["lines"]}
        assert lines["accelerator", "accelerator"]["status"] == "ok"
        assert lines["accelerator", "accelerator"]["found"].startswith("KVM")
        assert lines["vsock", "/dev/vhost-vsock"]["status"] == "ok"
        assert lines["kernel", "/dev/vhost-net"]["status"] == "ok"
        found = [line["found"] for line in document["lines"] if line["area"] == "qemu"]
        assert any(words.startswith(host.suite.qemu) for words in found), found

    @pytest.mark.needs("test_release_is_installed")
    def test_template_is_there(self, host: Host) -> None:
        templates = json.loads(host.output("qemubox template list --json"))
        assert "" in [each["problem"] for each in templates]
