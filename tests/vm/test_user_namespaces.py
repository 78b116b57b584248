"""Containers in a user namespace: root inside is somebody else outside."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, Box
from harness.images import BUSYBOX

pytestmark = pytest.mark.timeout(150)

_MAPS = ("--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536")


def test_root_in_it_is_nobody_outside(box: Box) -> None:
    """The snapshot has been given to the mapped users by containerd."""
    _assert_root_is_nobody_outside(box)


@pytest.mark.on("2")
def test_the_layers_are_mapped_by_the_mount(vm: Box) -> None:
    """Newer overlayfs snapshotters leave that to whoever mounts; there is no further snapshot then."""
    _assert_root_is_nobody_outside(vm, "--remap-labels")
    assert "remap" not in vm.containerd.ctr("snapshots", "ls").checked().text


def _assert_root_is_nobody_outside(box: Box, *options: str) -> None:
    script = """
        id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map
        stat -c '%u %g' /bin/busybox /
        touch /file; chown 5:6 /file; stat -c '%u %g' /file
        chown 70000 /file 2>&1 | grep -o 'Invalid argument'
        mount -t tmpfs tmpfs /mnt 2>/dev/null || echo no mount
        echo fine >/dev/null; ls /sys/kernel >/dev/null && ls -d /dev/shm
    """
    said = box.run("sh", "-c", script, options=(*_MAPS, *options)).checked().text.splitlines()
    assert said[:2] == ["0", "0"]
    assert [line.split() for line in said[2:4]] == [["0", "100000", "65536"], ["0", "200000", "65536"]]
    assert said[4:] == ["0 0", "0 0", "5 6", "Invalid argument", "no mount", "/dev/shm"]


@pytest.mark.release
def test_what_the_host_has_is_seen_with_its_own_owners(box: Box) -> None:
    """A file of root's is nobody's in there, and one that the mapped root owns is root's."""
    directory = box.containerd.cell.directory
    files = [directory / f"{box.new_id()}-{owner}" for owner in ("theirs", "ours")]
    for path, owner in zip(files, (0, 100000), strict=True):
        path.write_text("x")
        path.chmod(0o640)
        os.chown(path, owner, owner * 2)
    mounts = [word for path in files for word in _bound(path, f"/{path.name.rpartition('-')[2]}")]
    script = "stat -c '%u %g' /theirs /ours; cat /ours; echo; cat /theirs 2>/dev/null || echo denied"
    said = box.run("sh", "-c", script, options=(*_MAPS, *mounts)).checked().text.splitlines()
    assert said == ["65534 65534", "0 0", "x", "denied"]
    for path in files:
        path.unlink()


def _bound(path: Path, at: str) -> tuple[str, str]:
    return "--mount", f"type=bind,src={path},dst={at},options=rbind:ro"


def test_its_processes_are_in_it(box: Box) -> None:
    """Those of exec, too, and one with a terminal; and a port below 1024 is open to them."""
    script = "nc -l -p 80 -e cat & sleep 1; echo hello | nc -w 5 127.0.0.1 80; cat /dev/null; sleep 1d"
    container = box.start("sh", "-c", script, options=(*_MAPS, "--null-io"))
    exec_ = ("tasks", "exec", "--exec-id", box.new_id(), container)
    found = box.containerd.ctr(*exec_, "sh", "-c", "id -u; cat /proc/self/uid_map; netstat -tln", deadline_s=60)
    said = found.checked().text.splitlines()
    assert said[:1] == ["0"]
    assert said[1].split() == ["0", "100000", "65536"]
    assert any(":80 " in line for line in said), said
    box.kill(container).checked()
    box.wait_stopped(container)
    box.delete_task(container).checked()
    box.remove(container).checked()


def test_it_has_a_disk(vm: Box) -> None:
    """Whose root directory is the mapped root's: the container's root can write to it."""
    image = vm.containerd.cell.directory / f"{vm.new_id()}.img"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-E", "root_owner=100000:200000", image], check=True)
    mounts = ("--mount", f"type=ext4,src={image},dst=/data")
    said = vm.run("sh", "-c", "echo x >/data/file; stat -c '%u %g' /data/file", options=(*_MAPS, *mounts)).checked()
    assert said.text == "0 0"
    listed = subprocess.run(["debugfs", "-R", "stat file", image], check=True, capture_output=True, text=True).stdout
    assert "User: 100000   Group: 200000" in listed
    image.unlink()


@pytest.mark.release
def test_a_directory_of_the_host_has_its_own_owners(box: Box) -> None:
    """What the container's root writes into a volume is the mapped root's on the host."""
    directory = box.containerd.cell.directory / box.new_id()
    directory.mkdir(mode=0o750)
    os.chown(directory, 100000, 200000)
    (directory / "theirs").touch(mode=0o600)
    mount = ("--mount", f"type=bind,src={directory},dst=/data,options=rbind:rw")
    script = "stat -c '%u %g' /data /data/theirs; echo x >/data/ours; cat /data/theirs 2>/dev/null || echo denied"
    said = box.run("sh", "-c", script, options=(*_MAPS, *mount)).checked().text.splitlines()
    assert said == ["0 0", "65534 65534", "denied"]
    status = (directory / "ours").stat()
    assert (status.st_uid, status.st_gid) == (100000, 200000)
    shutil.rmtree(directory)


def test_what_it_has_written_is_there_again(box: Box) -> None:
    """With the owners that it had: the snapshot has the mapped ones."""
    _assert_written_is_there_again(box)


@pytest.mark.release
@pytest.mark.on("2")
def test_what_it_has_written_is_there_again_on_layers_that_are_mapped(vm: Box) -> None:
    """Which are those of the image, and not what was written."""
    _assert_written_is_there_again(vm, "--remap-labels")


def _assert_written_is_there_again(box: Box, *options: str) -> None:
    container = box.new_id()
    script = (
        "stat -c '%u %g' /file 2>/dev/null; touch /file; chown 5:6 /file; chown 7 /bin; stat -c %u /bin /bin/busybox"
    )
    arguments = box.run_arguments(container, ["sh", "-c", script], (*_MAPS, *options), BUSYBOX)
    assert box.containerd.ctr(*arguments, deadline_s=RUN_DEADLINE_S).checked().text.split() == ["7", "0"]
    again = box.containerd.ctr("tasks", "start", container, deadline_s=RUN_DEADLINE_S)
    assert again.checked().text.split() == ["5", "6", "7", "0"]
    box.remove(container).checked()
