"""Mounts that a kernel makes out of nothing: the guest's does as the host's would."""

import pytest

from harness.box import Box
from harness.messages import assert_one_clear_line

pytestmark = pytest.mark.timeout(150)


def _mount(kind: str, at: str, *options: str) -> tuple[str, str]:
    return "--mount", f"type={kind},src={kind},dst={at},options={':'.join(options)}"


def test_a_tmpfs_is_as_it_is_asked_for(box: Box) -> None:
    """Its size, mode and owner; what the image has at its place is copied where that is asked for."""
    mounts = (
        *_mount("tmpfs", "/small", "size=3m", "mode=1750", "uid=5", "gid=6", "nosuid", "noexec", "nr_inodes=40"),
        *_mount("tmpfs", "/dev/shm", "size=5m", "mode=1777", "nosuid", "nodev"),
        *_mount("mqueue", "/queues", "nosuid", "noexec", "nodev"),
        *_mount("tmpfs", "/etc", "tmpcopyup"),
    )
    script = """
        stat -c '%a %u %g' /small; df -k /small | tail -n 1; df -k /dev/shm | tail -n 1
        grep -E '^[^ ]+ (/small|/queues) ' /proc/mounts
        dd if=/dev/zero of=/small/file bs=1M count=4 2>&1 | grep -o 'No space left on device'
        touch /dev/mqueue/queue && ls /queues; ls /etc | head -n 1; touch /etc/new && ls /etc/new
    """
    said = box.run("sh", "-c", script, options=mounts).checked().text.splitlines()
    assert said[0] == "1750 5 6"
    assert [line.split()[1] for line in said[1:3]] == ["3072", "5120"]
    small, queues = sorted(said[3:5], key=lambda line: "mqueue" in line)
    assert {"rw", "nosuid", "noexec", "relatime", "nr_inodes=40", "uid=5", "gid=6"} <= {*small.split()[3].split(",")}
    assert queues.split()[2] == "mqueue"
    assert {"nosuid", "nodev", "noexec"} <= {*queues.split()[3].split(",")}
    assert said[5] == "No space left on device"
    assert said[6] == "queue"
    assert said[-1] == "/etc/new"
    assert len(said) == 9


def test_a_later_mount_covers_an_earlier_one(box: Box) -> None:
    """Below these, containerd 1.6 has a mount of /run of its own."""
    mounts = (*_mount("tmpfs", "/run", "size=3m"), *_mount("tmpfs", "/run", "size=4m"))
    said = (
        box.run("sh", "-c", "df -k /run | tail -n 1; grep -c ' /run ' /proc/mounts", options=mounts)
        .checked()
        .text.splitlines()
    )
    assert said[0].split()[1] == "4096"
    assert int(said[1]) == (3 if box.containerd.flavour.name == "1.6" else 2)


@pytest.mark.on("2")
@pytest.mark.parametrize("options", [("no-such-option",), ("size=lots",)])
def test_an_option_that_the_kernel_does_not_know(vm: Box, options: tuple[str, ...]) -> None:
    assert_one_clear_line(
        vm.run("true", options=_mount("tmpfs", "/place", *options)), "tmpfs. to .place", "Invalid argument"
    )
