"""What a container writes comes back to its snapshot, in a pause and at its end: its layer is what runc's would be."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import layer
from harness.box import Box
from harness.containerd import Result
from harness.deadline import eventually
from harness.images import BUSYBOX, CHANGES

pytestmark = pytest.mark.timeout(200)

_DEADLINE_S = 60.0
# Every kind of change that a layer can hold.
_CHANGE = """
set -e
mkdir -p /new/deep; seq 1 20000 >/new/deep/file; echo one >/new/a; ln /new/a /new/b; ln -s a /new/link
mkfifo /new/pipe; mknod /new/null c 1 3; mkdir -m 1777 /new/empty; truncate -s 8M /new/sparse
printf end | dd of=/new/sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
chown 12:34 /new/deep; chmod 4751 /new/a; touch -d '2001-02-03 04:05:06' /new/deep/file
cp /bin/busybox /new/capable; setcap cap_net_admin=ep /new/capable
echo more >>/noted; rm /removed; rm -r /replaced; mkdir /replaced; echo new >/replaced/only; rm /listed/1?
mv /etc/group /etc/groups; chmod 700 /home; rm -r /var
"""
_CHANGE_WHITEOUTS = 13
_LOOK = """
cat /noted /replaced/only /new/b /new/link; stat -c '%a %h %s' /new/b; stat -c '%u %g' /new/deep; md5sum </new/deep/file
ls /listed /replaced; tail -c +4999990 /new/sparse | head -c 20 | od -c; ls /removed /var /etc/group
ls -l /new/null /new/pipe | cut -c1; stat -c '%Y' /new/deep/file; [ /new/a -ef /new/b ] && echo same
"""


@pytest.fixture
def changes_image(box: Box) -> str:
    box.containerd.import_image(CHANGES)
    return CHANGES


@contextmanager
def _ended(box: Box, *command: str, options: tuple[str, ...] = (), image: str = BUSYBOX) -> Iterator[str]:
    """A container that has run to its end; its task is gone, its snapshot is there for the block."""
    container = box.start(*command, options=("--null-io", *options), image=image)
    _end(box, container)
    yield container
    box.remove(container).checked()


def _end(box: Box, container: str) -> None:
    box.wait_stopped(container)
    box.delete_task(container)


def _start(box: Box, container: str) -> str:
    """Run its program once more, from the snapshot as it is; what that says."""
    result = box.containerd.ctr("tasks", "start", container, deadline_s=_DEADLINE_S)
    box.delete_task(container)
    return result.text


def _image_of(box: Box, container: str) -> Path:
    """The writable image that its machine has open."""
    qemu = next(each for each in box.processes("qemu-system-x86_64"))
    (path,) = {file.path for file in qemu.open_files() if file.path.endswith(".ext4")}
    return Path(path)


def _twice(first: str, then: str) -> tuple[str, ...]:
    return ("sh", "-c", f"if [ -e /first ]; then {then}\nelse touch /first; {first}\nfi")


def test_the_next_start_sees_it(box: Box, changes_image: str) -> None:
    with _ended(box, *_twice(_CHANGE, f"({_LOOK}) 2>&1"), image=changes_image) as container:
        said = _start(box, container)
        assert said == _start(box, container)
    lines = said.splitlines()
    assert lines[:7] == ["of the image", "more", "new", "one", "one", "4751 2 4", "12 34"]
    assert lines[-2:] == ["981173106", "same"]


def test_its_layer_is_what_runc_s_would_be(vm: Box, changes_image: str) -> None:
    """After the end, and in a pause, where the container goes on."""
    with _ended(Box(vm.containerd, "runc"), "sh", "-c", _CHANGE, image=changes_image) as container:
        wanted = layer.of_snapshot(vm.containerd, container)
        times = layer.times(vm.containerd, container)
        usage = _usage(vm, container)
    with _ended(vm, "sh", "-c", _CHANGE, image=changes_image) as container:
        assert layer.of_snapshot(vm.containerd, container) == wanted
        assert layer.times(vm.containerd, container)["new/deep/file"] == times["new/deep/file"] == 981173106
        inodes, kib = _usage(vm, container)
        # The host's overlayfs makes all whiteouts one inode.
        assert usage[0] <= inodes <= usage[0] + _CHANGE_WHITEOUTS
        assert abs(usage[1] - kib) < 200
    container = vm.start("sh", "-c", f"{_CHANGE} touch /tmp/ready; sleep 1000", image=changes_image)
    eventually(lambda: _exec(vm, container, "ls", "/tmp/ready").code == 0, "it is ready", _DEADLINE_S)
    vm.containerd.ctr("tasks", "pause", container).checked()
    found = layer.of_snapshot(vm.containerd, container)
    assert set(found) - set(wanted) == {"tmp", "tmp/ready"}
    assert {name: found[name] for name in wanted} == wanted
    vm.containerd.ctr("tasks", "resume", container).checked()
    _exec(vm, container, "rm", "-r", "/new", "/tmp/ready").checked()
    vm.containerd.ctr("tasks", "pause", container).checked()
    found = layer.of_snapshot(vm.containerd, container)
    assert not [name for name in found if name.startswith("new")]
    vm.kill(container).checked()
    _end(vm, container)
    vm.remove(container).checked()


def _usage(box: Box, container: str) -> tuple[int, int]:
    """Inodes, and KiB."""
    text = box.containerd.ctr("snapshots", "usage", "-b", container).checked().text.splitlines()[-1]
    _key, size, inodes = text.split()
    return int(inodes), int(size) // 1024


def _exec(box: Box, container: str, *command: str) -> Result:
    return box.containerd.ctr("tasks", "exec", "--exec-id", "e", container, *command, deadline_s=_DEADLINE_S)


def test_one_that_writes_nothing_has_an_empty_layer(box: Box, changes_image: str) -> None:
    with _ended(box, "true", image=changes_image) as container:
        assert layer.of_snapshot(box.containerd, container) == {}


@pytest.mark.on("2")
def test_upon_the_erofs_snapshotter(vm: Box) -> None:
    """In block mode what is beside the image, where the erofs differ looks, is what another upper directory holds.

    The walking differ cannot mount such a snapshot (containerd 2.3); the erofs differ wants newer tools than Debian's.
    """
    for snapshotter in ("overlayfs", "erofs"):
        vm.containerd.import_image(CHANGES, snapshotter=snapshotter)
    program = _twice(_CHANGE, f"({_LOOK}) 2>&1")
    with _ended(vm, *program, image=CHANGES) as container:
        wanted = layer.of_directory(Path(_upper(vm, container)))
    with _ended(vm, *program, image=CHANGES, options=("--snapshotter", "erofs")) as container:
        upper = Path(_upper(vm, container, "erofs"))
        assert layer.of_directory(upper) == wanted
        assert _start(vm, container).splitlines()[-1] == "same"
        assert layer.of_directory(upper) == wanted


def test_a_pause_fails_where_the_host_s_disk_is_full_and_it_runs_on(vm: Box) -> None:
    """Its end is told all the same, and nothing is lost: the next start has it all."""
    program = _twice("head -c 20m /dev/urandom >/big; md5sum </big; sleep 1000", "md5sum </big")
    container = vm.new_id()
    arguments = vm.run_arguments(container, program, [], BUSYBOX)
    with vm.containerd.running(arguments) as ctr:
        assert ctr.stdout is not None
        digest = ctr.stdout.readline().decode().strip()
        with _full(vm, _upper(vm, container)):
            failed = vm.containerd.ctr("tasks", "pause", container)
            assert "No space left on device" in failed.error
            assert vm.status(container) == "RUNNING"
            assert _exec(vm, container, "echo", "here").checked().text == "here"
            offset = vm.containerd.log_size()
            vm.kill(container).checked()
            assert ctr.wait(_DEADLINE_S) == 137
            assert "did not come back" in vm.containerd.log_tail(offset)
            vm.delete_task(container)
    assert _start(vm, container) == digest
    assert "big" in layer.of_snapshot(vm.containerd, container)
    vm.remove(container).checked()


def _upper(box: Box, container: str, snapshotter: str = "overlayfs") -> str:
    """The directory on the host that takes the writes of a container."""
    if snapshotter == "erofs":
        # An image's own layer may have one still, of its unpacking: the newest snapshot is the container's.
        images = box.containerd.cell.directory.glob("root/*.erofs/snapshots/*/rwlayer.img")
        return str(max(images, key=lambda image: int(image.parent.name)).with_name("fs"))
    mounts = box.containerd.ctr("snapshots", "mounts", "/x", container).checked().text
    (upper,) = re.findall(r"upperdir=([^,\s]+)", mounts)
    return str(upper)


@contextmanager
def _full(box: Box, directory: str) -> Iterator[None]:
    """As if it were on a file system of 4 MiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "small", directory]
    subprocess.run(box.containerd.cell.inside(mount), check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(box.containerd.cell.inside(["umount", directory]), check=True, timeout=10)


@pytest.mark.release
def test_switched_off_it_stays_in_the_machine(vm: Box) -> None:
    with vm.qemubox.changed({"rootfs": {"write_back": "never"}}), _ended(vm, "touch", "/file") as container:
        assert "file" not in layer.of_snapshot(vm.containerd, container)
    pod = ("--annotation", "io.kubernetes.cri.container-type=container")
    with _ended(vm, "touch", "/file", options=pod) as container:
        assert "file" not in layer.of_snapshot(vm.containerd, container)
