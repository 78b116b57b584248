"""Inside, a container sees its machine, not the host; and its limits hold there."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import Box
from harness.images import NOBODYS

MIB = 1 << 20
# The machine's base memory, less what the kernel keeps for itself; see docs/architecture.md.
_BASE_MIB = 160


def test_the_kernel_is_the_guest_s(vm: Box) -> None:
    release = vm.run("uname", "-r").text
    assert re.match(r"\d+\.\d+", release)
    assert release != os.uname().release


def test_qemu_runs_as_a_user_whom_no_other_machine_has(vm: Box) -> None:
    container = vm.start_trapping(0)
    try:
        found = vm.inspect(container)
        uids = re.search(r"^Uid:(.*)$", Path(f"/proc/{found['qemu_pid']}/status").read_text(), re.M)
        assert uids is not None
        assert {*map(int, uids[1].split())} == {1_879_048_192 + vm.shim(container).pid}
    finally:
        vm.kill(container, "KILL").checked()
        vm.wait_stopped(container)
        vm.delete_task(container)
        vm.remove(container).checked()


def test_cpuinfo_shows_the_machine_s_processors(vm: Box) -> None:
    """One by default, and not the host's."""
    text = vm.run("cat", "/proc/cpuinfo").text
    assert text.count("processor\t:") == 1
    host = Path("/proc/cpuinfo").read_text()
    assert text.split("microcode")[0] != host.split("\n\n")[0].split("microcode")[0]


def test_a_limit_of_two_processors_brings_two(vm: Box) -> None:
    assert vm.run("grep", "-c", "^processor", "/proc/cpuinfo", options=("--cpus", "2")).text == str(
        min(2, os.cpu_count() or 1)
    )


@pytest.mark.release
def test_free_shows_the_machine_s_memory(vm: Box) -> None:
    """What the configuration gives a container without a limit, plus the base."""
    total = _total_mib(vm.run("free", "-m").text)
    assert 512 <= total + 16 <= 512 + _BASE_MIB


@pytest.mark.release
def test_memory_limit_sizes_the_machine(vm: Box) -> None:
    total = _total_mib(vm.run("free", "-m", options=("--memory-limit", str(256 * MIB))).text)
    assert 256 <= total <= 256 + _BASE_MIB


def test_memory_limit_is_the_cgroup_s(vm: Box) -> None:
    mount = "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro:nosuid:noexec:nodev"
    options = ("--memory-limit", str(256 * MIB), "--mount", mount)
    # containerd gives no cgroup namespace where the host has cgroup v1: then the path is the whole one.
    read = "cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max"
    result = vm.run("sh", "-c", read, options=options)
    assert result.text == str(256 * MIB), result.error


# `tail` keeps in memory what has no line end; the shell's status tells how its child died.
_USE_MEMORY = "head -c {mib}m /dev/zero | tail > /dev/null; exit $?"


def test_memory_within_the_limit_is_there(box: Box) -> None:
    """busybox's tail doubles its buffer as it grows: 64 MiB need up to 192."""
    result = box.run("sh", "-c", _USE_MEMORY.format(mib=64), options=("--memory-limit", str(256 * MIB)))
    assert result.code == 0, result.error


@pytest.mark.release
def test_memory_beyond_the_limit_kills(box: Box) -> None:
    result = box.run("sh", "-c", _USE_MEMORY.format(mib=100), options=("--memory-limit", str(64 * MIB)))
    assert result.code == 137


def test_the_guest_outlives_its_container_s_hunger(vm: Box) -> None:
    """The killed child was the container's, inside its cgroup; the first process goes on."""
    command = "head -c 100m /dev/zero | tail > /dev/null; echo still here"
    result = vm.run("sh", "-c", command, options=("--memory-limit", str(64 * MIB)))
    assert (result.code, result.text) == (0, "still here")


@pytest.fixture
def nobodys_image(box: Box) -> Iterator[str]:
    """An image whose USER is 65534."""
    box.containerd.import_image(NOBODYS)
    yield NOBODYS
    box.containerd.remove_image(NOBODYS)


def test_the_specification_is_kept_inside(box: Box, nobodys_image: str) -> None:
    """User, working directory, environment, capabilities, no-new-privileges and rlimits."""
    look = "id -u; pwd; echo $WORD; grep -E 'CapEff|NoNewPrivs' /proc/self/status; ulimit -n"
    result = box.run("sh", "-c", look, options=("--env", "WORD=set", "--cwd", "/tmp"), image=nobodys_image)
    lines = result.text.splitlines()
    assert lines[:3] == ["65534", "/tmp", "set"]
    assert lines[3].split() == ["CapEff:", "0000000000000000"]
    assert lines[4].split() == ["NoNewPrivs:", "1"]
    assert lines[5:] == ["1024"]


def test_masked_and_read_only_paths(box: Box) -> None:
    result = box.run("sh", "-c", "ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/panic")
    assert (result.code, result.text) == (1, "0")
    assert "Read-only file system" in result.error


def test_the_seccomp_profile_is_in_force(box: Box) -> None:
    """2 is SECCOMP_MODE_FILTER (proc_pid_status(5))."""
    result = box.run("sh", "-c", "grep Seccomp: /proc/self/status | cut -f2", options=("--seccomp",))
    assert result.text == "2"


def test_root_keeps_only_the_specification_s_capabilities(box: Box) -> None:
    """containerd's default set (oci.WithDefaultUnixCaps)."""
    assert box.run("sh", "-c", "grep CapEff /proc/self/status | cut -f2").text == "00000000a80425fb"


def test_a_read_only_root_is_read_only(box: Box) -> None:
    result = box.run("sh", "-c", "echo x > /file", options=("--read-only",))
    assert result.code != 0
    assert "Read-only file system" in result.error


def test_a_writable_root_is_this_container_s_alone(box: Box) -> None:
    assert box.run("sh", "-c", "echo mine > /file; cat /file; rm -r /home; ls -d /home").text == "mine"
    assert box.run("sh", "-c", "ls /file; ls -d /home").text == "/home"


def test_only_the_container_s_processes_are_seen(box: Box) -> None:
    """A process namespace of its own: the first process is number 1."""
    assert box.run("sh", "-c", "echo $$; ls -d /proc/[0-9]*; :").text.splitlines()[:2] == ["1", "/proc/1"]
    assert int(box.run("sh", "-c", "ls -d /proc/[0-9]* | wc -l").text) <= 3


def _total_mib(free: str) -> int:
    return int(next(line for line in free.splitlines() if line.startswith("Mem:")).split()[1])
