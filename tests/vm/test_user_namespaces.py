"""Containers in a user namespace: root inside is somebody else outside."""

import pytest

from harness.box import Box

pytestmark = pytest.mark.timeout(150)

_MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")


@pytest.mark.parametrize("remap", [(), ("--remap-labels",)])
def test_root_in_it_is_nobody_outside(box: Box, remap: tuple[str, ...]) -> None:
    """The snapshot has been given to the mapped users by containerd, or newer ones leave the mapping to the mount."""
    script = """
        id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map
        stat -c '%u %g' /bin/busybox /
        touch /file; chown 5:6 /file; stat -c '%u %g' /file
        chown 70000 /file 2>&1 | grep -o 'Invalid argument'
        mount -t tmpfs tmpfs /mnt 2>/dev/null || echo no mount
        echo fine >/dev/null; ls /sys/kernel >/dev/null && ls -d /dev/shm
    """
    said = box.run("sh", "-c", script, options=(*_MAPS, *remap)).checked().text.splitlines()
    assert said[:2] == ["0", "0"]
    assert [line.split() for line in said[2:4]] == [["0", "100000", "65536"], ["0", "200000", "65536"]]
    assert said[4:] == ["0 0", "0 0", "5 6", "Invalid argument", "no mount", "/dev/shm"]
