"""A clean host, and the release on it, installed as a user would: at once, or over a container of the previous one."""

import json
import re
from typing import ClassVar

import pytest

from tests.kvm.harness import listing
from tests.kvm.harness.data import PREVIOUS
from tests.kvm.harness.host import DATA, PREFIX, Host, Suite

UNPACK_DEADLINE_S = 400.0
# The copy of 300 MiB, a template, and a check with two boots: 90 s alone, many minutes where others use the machine.
INSTALL_DEADLINE_S = 900.0
# Level, area, what was looked at, and what was found, of a line of `qemubox check` (shim/check/line.py).
_CHECKED = re.compile(r"^(ok|warning) +(\S+) +(.+?): (.*)$", re.MULTILINE)
_INSTALL = pytest.mark.timeout(UNPACK_DEADLINE_S + INSTALL_DEADLINE_S + 300)


def unpack_and_install(host: Host) -> float:
    """Unpack the release's archive and run its installer: how many seconds the latter took."""
    host.run(f"cd /root && rm -rf qemubox-* && tar -xzf {DATA}/release.tar.gz", UNPACK_DEADLINE_S)
    seconds = install(host, "/root/qemubox-*-linux-x86_64")
    host.run("rm -rf /root/qemubox-*")
    return seconds


def install(host: Host, directory: str) -> float:
    """Run the installer of a release that is unpacked, also where nobody can write: how many seconds it took."""
    installed = host.run(f"cd {directory} && ./install.sh {host.suite.options} 2>&1", INSTALL_DEADLINE_S)
    assert "0 failures" in installed.stdout  # the check at its end
    host.kept["installed"] = installed.stdout
    assert host.failed_units() == ""
    active = host.output(f"systemctl is-active qemubox.service {host.suite.containerd}")
    assert active.splitlines() == ["active", "active"]
    return installed.seconds


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
    """This release on the clean host, from a medium that is mounted read-only."""

    @pytest.mark.needs("test_host_is_clean_and_has_kvm")
    @_INSTALL
    def test_release_is_installed(self, host: Host) -> None:
        host.times.record("install", install(host, f"{DATA}/release"))
        host.ctr(f"image import {DATA}/busybox.tar")


class Upgrade:
    """The previous release on the clean host, and this one's archive over it, under a container that runs."""

    @pytest.mark.needs("test_host_is_clean_and_has_kvm")
    @_INSTALL
    def test_previous_release_is_installed(self, host: Host) -> None:
        host.times.record("install", install(host, f"{DATA}/previous"))
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
        host.times.record("upgrade", unpack_and_install(host))
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
    """What the installation says of itself, at its end."""

    @pytest.mark.needs("test_release_is_installed")
    def test_check_found_the_production_path(self, host: Host) -> None:
        found = {(area, what): (level, words) for level, area, what, words in _CHECKED.findall(host.kept["installed"])}
        level, words = found["accelerator", "accelerator"]
        assert (level, words[:3]) == ("ok", "KVM")
        assert found["vsock", "/dev/vhost-vsock"][0] == "ok"
        assert found["kernel", "/dev/vhost-net"][0] == "ok"
        versions = [words for (area, _), (_, words) in found.items() if area == "qemu"]
        assert any(words.startswith(host.suite.qemu) for words in versions), versions

    @pytest.mark.needs("test_release_is_installed")
    def test_template_is_there(self, host: Host) -> None:
        templates = json.loads(host.output("qemubox template list --json"))
        assert "" in [each["problem"] for each in templates]


class CheckedAgain:
    """The check by itself, as a program reads it. It boots two machines."""

    @pytest.mark.needs("test_check_found_the_production_path")
    @pytest.mark.timeout(600)
    def test_check_as_json(self, host: Host) -> None:
        done = host.run("qemubox check --json", 400)
        host.times.record("check", done.seconds)
        lines = json.loads(done.stdout)["lines"]
        assert [line for line in lines if line["status"] == "failure"] == []
        areas = {area for _, area, _, _ in _CHECKED.findall(host.kept["installed"])}
        assert {line["area"] for line in lines} == areas
