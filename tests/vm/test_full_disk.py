"""A full disk: the container's own, the host's beneath it, and the host's before it starts."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.box import Box
from harness.deadline import eventually
from harness.messages import assert_one_clear_line


@contextmanager
def _small_disk(vm: Box, name: str, size: str) -> Iterator[tuple[str, Path]]:
    """A file system of that size, in the cell: its path there, and the path by which it is seen from outside."""
    directory = vm.containerd.cell.directory / name
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "small", str(directory)]
    subprocess.run(vm.containerd.cell.inside(mount), check=True, timeout=10)
    try:
        yield str(directory), vm.containerd.cell.path(str(directory))
    finally:
        subprocess.run(vm.containerd.cell.inside(["umount", str(directory)]), check=True, timeout=10)
        directory.rmdir()


def test_a_full_writable_layer(vm: Box) -> None:
    with vm.qemubox.changed({"rootfs": {"writable_mib": 32}}):
        result = vm.run("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=64; rm /big; echo fine > /file && cat /file")
    assert "No space left on device" in result.error
    assert (result.code, result.text) == (0, "fine")


def test_a_host_disk_that_fills_up_under_a_running_container(vm: Box) -> None:
    """The sparse file cannot grow: the process is told by an error, and neither it nor the machine hangs."""
    with (
        _small_disk(vm, "full-data", "24m") as (data, seen),
        vm.qemubox.changed({"runtime": {"data_dir": data}, "rootfs": {"writable_mib": 256}}),
    ):
        # Random data: zeros may never be written, on a sparse file.
        result = vm.run("sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=64 conv=fsync; echo $?")
        assert result.text == "1", result.error
        assert "rror" in result.error
        # What it has on its disk is kept, since the rest cannot be had: until its snapshot goes.
        (image,) = seen.glob("writable/*/writable.ext4")
        eventually(lambda: _swept(vm, image), "the image goes with the snapshot", 20)
        assert not [path for path in seen.rglob("*") if path.is_file()]


def _swept(vm: Box, image: Path) -> bool:
    vm.qemubox.command("gc").check_returncode()
    return not image.exists()


def test_no_room_for_a_layer(vm: Box) -> None:
    with _small_disk(vm, "full-cache", "400k") as (cache, seen), vm.qemubox.changed({"runtime": {"cache_dir": cache}}):
        assert_one_clear_line(vm.run("true"), "no room to make an image of .*/fs", "free some of that file system")
        # An empty file system that writable layers are copied from may have found room: it is of the cache.
        assert not [path for path in seen.rglob("*") if path.is_file() and path.parent.name != "empty"]


def test_no_room_for_the_machine_s_directory(vm: Box) -> None:
    with _small_disk(vm, "full-state", "4k") as (state, seen):
        (seen / "filler").write_bytes(bytes(4096))
        with vm.qemubox.changed({"runtime": {"state_dir": state}}):
            assert_one_clear_line(vm.run("true"), "[Nn]o space left|full|room")
        # The directory that holds all machines' stays, empty.
        assert {path.name for path in seen.rglob("*")} <= {"filler", "vm"}
