"""A disk of the host that answers nothing for a while: what a container wrote waits, and nothing is frozen for good."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.box import Box
from harness.deadline import eventually

pytestmark = pytest.mark.timeout(180)

_DEADLINE_S = 60.0


class Disk:
    """A file system in the cell. What is written to it while it is held waits until it is released."""

    def __init__(self, vm: Box) -> None:
        self._cell = vm.containerd.cell
        self._directory = self._cell.directory / "stuck"
        self._image = self._directory.with_suffix(".img")
        self.path = str(self._directory)

    def hold(self) -> None:
        self._run("fsfreeze", "--freeze", self.path)

    def release(self) -> None:
        self._run("fsfreeze", "--unfreeze", self.path)

    def make(self) -> None:
        self._directory.mkdir()
        with self._image.open("wb") as file:
            file.truncate(512 << 20)
        self._run("mkfs.ext4", "-q", str(self._image))
        self._run("mount", "-o", "loop", str(self._image), self.path)

    def remove(self) -> None:
        self._run("umount", self.path)
        self._directory.rmdir()
        self._image.unlink()

    def _run(self, *words: str) -> None:
        subprocess.run(self._cell.inside(words), check=True, timeout=_DEADLINE_S)


@contextmanager
def _disk(vm: Box) -> Iterator[Disk]:
    disk = Disk(vm)
    disk.make()
    try:
        yield disk
    finally:
        disk.remove()


def test_a_pause_that_waits_for_a_disk_fails_in_time_and_leaves_it_running(vm: Box) -> None:
    """Processes that wait for a disk cannot be stopped, nor can what was written by then be waited for without end."""
    with (
        _disk(vm) as disk,
        vm.qemubox.changed({"runtime": {"data_dir": disk.path}, "rootfs": {"writable_mib": 256}}),
    ):
        container = vm.start("sh", "-c", "while :; do echo tick >>/ticks; sync; done")

        def ticks() -> int:
            counted = vm.containerd.ctr("tasks", "exec", "--exec-id", "e", container, "grep", "-c", "tick", "/ticks")
            return int(counted.text or 0)

        eventually(lambda: ticks() > 1, "it ticks", _DEADLINE_S)
        disk.hold()
        try:
            began = time.monotonic()
            failed = vm.containerd.ctr("tasks", "pause", container)
            assert "did not stand still within" in failed.error
            assert time.monotonic() - began < 40
            assert vm.status(container) == "RUNNING"
            vm.containerd.signal(container, 0).checked()
            vm.containerd.ctr("tasks", "metrics", container).checked()
        finally:
            disk.release()
        before = ticks()
        eventually(lambda: ticks() > before, "it ticks again", _DEADLINE_S)
        vm.containerd.ctr("tasks", "pause", container).checked()
        vm.containerd.ctr("tasks", "resume", container).checked()
        assert vm.status(container) == "RUNNING"
        vm.kill(container).checked()
        vm.wait_stopped(container)
        vm.delete_task(container)
        vm.remove(container).checked()
