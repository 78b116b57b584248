"""Snapshotters beside overlayfs and erofs (test_layers.py): native, blockfile, whole file systems as devmapper's.

There is no device mapper in the kernels that these tests run on; a loop device is a block device as its are.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.box import RUNTIMES, Box
from harness.images import BUSYBOX
from harness.qemubox import RUNTIME

# The smallest that each can be made, in MiB.
_MIB = {"ext4": 16, "btrfs": 112, "xfs": 300}
_DEADLINE_S = 60.0


def _imported(box: Box, snapshotter: str) -> tuple[str, ...]:
    """Options for a snapshotter, with the image unpacked for it."""
    box.containerd.import_image(BUSYBOX, snapshotter=snapshotter)
    return ("--snapshotter", snapshotter)


@pytest.mark.every_containerd
def test_native(box: Box) -> None:
    """Its snapshot is a whole copy of what is below; it is there to read and to write to."""
    look = "uname -s; rm /bin/ash; echo mine > /etc/mine; cat /etc/mine; ls /bin/ash"
    result = box.run("sh", "-c", look, options=_imported(box, "native"))
    assert result.text.split("\n") == ["Linux", "mine"], result.error
    assert "/bin/ash: No such file" in result.error


def test_native_read_only(box: Box) -> None:
    result = box.run("sh", "-c", "uname -s; touch /new", options=("--read-only", *_imported(box, "native")))
    assert (result.code, result.text) == (1, "Linux"), result.error
    assert "Read-only file system" in result.error


@pytest.mark.release
@pytest.mark.on("2")
def test_blockfile(box: Box) -> None:
    """Its snapshot is a file with a file system, which takes the writes itself: they are there at the next start."""
    options = _imported(box, "blockfile")
    script = "test -e /kept && exec cat /kept; echo first > /kept; df -k / | tail -n 1; exit 7"
    container = box.new_id()
    first = box.containerd.ctr(*box.run_arguments(container, ("sh", "-c", script), options, BUSYBOX)).text.split()
    assert 8 << 10 < int(first[1]) < 16 << 10, first  # of 16 MiB, with what ext4 has for itself
    second = box.containerd.ctr("tasks", "start", container, deadline_s=_DEADLINE_S)
    assert (second.code, second.text) == (0, "first"), second.error
    box.remove(container).checked()


@pytest.fixture
def container(box: Box) -> Iterator[str]:
    """A container without a task, which writes into its root and says there what it runs on."""
    container = box.new_id()
    script = "test -d /sub && ! test -e /written && uname -r > /written && sync"
    arguments = ("--runtime", RUNTIMES[box.runtime], BUSYBOX, container, "sh", "-c", script)
    box.containerd.ctr("containers", "create", *arguments).checked()
    yield container
    box.remove(container).checked()


@contextmanager
def _mounted(image: Path, point: Path) -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True, timeout=_DEADLINE_S)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=_DEADLINE_S)


def _image(tmp_path: Path, fstype: str) -> Path:
    """A file system with busybox and a directory in it, as the unpacking of layers leaves one."""
    image = tmp_path / "root.img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(_MIB[fstype] << 20)
    subprocess.run([f"mkfs.{fstype}", "-q", image], check=True, timeout=_DEADLINE_S)
    with _mounted(image, tmp_path / "point") as root:
        for name in ("bin", "sub", "proc", "dev", "sys", "run", "tmp", "etc"):
            (root / name).mkdir()
        (root / "bin" / "busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (root / "bin" / "busybox").chmod(0o755)
        for name in ("sh", "test", "uname", "sync"):
            (root / "bin" / name).symlink_to("busybox")
    return image


@contextmanager
def _loop(image: Path) -> Iterator[str]:
    device = subprocess.check_output(["losetup", "--find", "--show", image], text=True, timeout=_DEADLINE_S).strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=_DEADLINE_S)


def _run_on(box: Box, container: str, fstype: str, source: str, options: str) -> None:
    box.containerd.create_task_on(container, fstype, source, options).checked()
    box.containerd.start_task(container).checked()
    box.wait_stopped(container)
    assert box.delete_task(container).code == 0


@pytest.mark.on("2")
@pytest.mark.parametrize("fstype", [*_MIB])
def test_a_whole_file_system_in_a_file(vm: Box, container: str, fstype: str, tmp_path: Path) -> None:
    image = _image(tmp_path, fstype)
    _run_on(vm, container, fstype, str(image), "loop,nouuid,rw" if fstype == "xfs" else "loop,rw")
    with _mounted(image, tmp_path / "point") as root:
        assert (root / "written").read_text().endswith("-qemubox\n")


@pytest.mark.release
@pytest.mark.on("2")
def test_a_whole_file_system_on_a_block_device(vm: Box, container: str, tmp_path: Path) -> None:
    image = _image(tmp_path, "ext4")
    with _loop(image) as device:
        _run_on(vm, container, "ext4", device, "rw")
    with _mounted(image, tmp_path / "point") as root:
        assert (root / "written").read_text().endswith("-qemubox\n")


@pytest.mark.on("2")
def test_what_cannot_be_a_root_says_which_file_or_snapshotter(vm: Box, container: str, tmp_path: Path) -> None:
    """And leaves nothing, which the fixture looks for."""
    cut = _image(tmp_path, "ext4")
    with cut.open("r+b") as file:
        file.truncate(8 << 20)
    overlay = f"userxattr,lowerdir={tmp_path}"
    for fstype, source, options, words in (
        ("ext4", str(cut), "loop,rw", f"{cut}: cut short, its ext4 file system is of 16777216 bytes"),
        ("erofs", str(tmp_path / "gone"), "loop,ro", f"{tmp_path}/gone: No such file or directory"),
        ("overlay", "overlay", overlay, "the overlayfs snapshotter cannot be used: by its option userxattr"),
        ("zfs", "tank/1", "rw", "the zfs snapshotter cannot be used: dataset tank/1"),
    ):
        refused = vm.containerd.create_task_on(container, fstype, source, options)
        assert refused.code == 1
        assert words in refused.error


def test_a_root_that_is_no_snapshot(vm: Box, tmp_path: Path) -> None:
    """As docker without the containerd image store has it: there are no mounts."""
    arguments = ("run", "--rm", "--runtime", RUNTIME, "--rootfs", str(tmp_path), vm.new_id(), "true")
    refused = vm.containerd.ctr(*arguments, deadline_s=_DEADLINE_S)
    assert refused.code == 1
    assert "Create names no root file system" in refused.error
    assert '"features": {"containerd-snapshotter": true}' in refused.error
