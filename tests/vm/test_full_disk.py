"""A full disk: the container's own, the host's beneath it, and the host's before it starts."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.box import Box
from harness.messages import assert_one_clear_line


@contextmanager
def _small_disk(vm: Box, name: str, size: str) -> Iterator[Path]:
    """A file system of that size, in the cell."""
    directory = vm.containerd.cell.directory / name
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "small", str(directory)]
    subprocess.run(vm.containerd.cell.inside(mount), check=True, timeout=10)
    try:
        yield directory
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
        _small_disk(vm, "full-data", "24m") as data,
        vm.qemubox.changed({"runtime": {"data_dir": str(data)}, "rootfs": {"writable_mib": 256}}),
    ):
        result = vm.run("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=128 conv=fsync; echo $?")
        assert result.text != "0"
        assert list(data.rglob("*.*")) == []


def test_no_room_for_a_layer(vm: Box) -> None:
    with _small_disk(vm, "full-cache", "400k") as cache, vm.qemubox.changed({"runtime": {"cache_dir": str(cache)}}):
        assert_one_clear_line(vm.run("true"), "[Nn]o space left|full|room")
        assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_no_room_for_the_machine_s_directory(vm: Box) -> None:
    with _small_disk(vm, "full-state", "4k") as state:
        (state / "filler").write_bytes(bytes(4096))
        with vm.qemubox.changed({"runtime": {"state_dir": str(state)}}):
            assert_one_clear_line(vm.run("true"), "[Nn]o space left|full|room")
