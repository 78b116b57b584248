"""Writable images outlive what kills their machines: what was fsynced is there again, for the same snapshot alone."""

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.images import BUSYBOX

pytestmark = pytest.mark.timeout(300)

_DEADLINE_S = 60.0
# Checks all records that there are, then writes more, and tells of each once it is on the disk; beside one who writes
# a lot that never is.
_RECORDS = """
mkdir -p /records; cd /records; last=0
for file in $(ls | grep -v tmp | sort -n); do
  last=$((last + 1)); [ $file = $last ] || echo missing $last
  [ "$(tail -n 1 $file)" = "$(head -c 16384 $file | md5sum)" ] || echo bad $file
done
echo found $last
while :; do head -c 4m /dev/urandom >/noise; mv /noise /more; ln /more /other; rm /more /other; done &
while :; do
  last=$((last + 1)); head -c 16384 /dev/urandom >tmp; sum="$(md5sum <tmp)"; { echo; echo "$sum"; } >>tmp
  sync tmp; mv tmp $last; sync $last .; echo $last
done
"""


@pytest.fixture
def erofs(vm: Box) -> None:
    vm.containerd.import_image(BUSYBOX, snapshotter="erofs")


@contextlib.contextmanager
def _container(vm: Box, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """One that runs again and again; its snapshot goes with the block."""
    container = vm.new_id()
    create = ["containers", "create", *options, "--runtime", RUNTIMES["qemubox"], "--", BUSYBOX, container, *command]
    vm.containerd.ctr(*create).checked()
    yield container
    vm.remove(container).checked()


@contextlib.contextmanager
def _task(vm: Box, container: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A start of it, in the foreground; the task is deleted at the end."""
    with vm.containerd.running(["tasks", "start", container]) as ctr:
        yield ctr
        ctr.wait(_DEADLINE_S)  # one that is killed while it deletes the task leaves half a task
    vm.containerd.ctr("tasks", "delete", "-f", container)


def _line(ctr: "subprocess.Popen[bytes]") -> str:
    assert ctr.stdout is not None
    return ctr.stdout.readline().decode().strip()


def _run(vm: Box, container: str) -> str:
    """A start of it to its end; what it says."""
    with _task(vm, container) as ctr:
        said, _ = ctr.communicate(timeout=_DEADLINE_S)
    return said.decode().strip()


def _images(vm: Box) -> list[Path]:
    return sorted((vm.qemubox.data / "writable").glob("*/*"))


def _killed_again_and_again(vm: Box, runs: int, *options: str) -> None:
    """Each time at another moment; after each, all that was told of is there, and whole."""
    told = 0
    with _container(vm, "sh", "-c", _RECORDS, options=options) as container:
        for _ in range(runs):
            with _task(vm, container) as ctr:
                found = _line(ctr)
                assert found.startswith("found "), found
                assert told <= int(found.split()[1]) <= told + 1
                told = int(found.split()[1])
                assert _line(ctr) == str(told + 1)
                (qemu,) = vm.processes("qemu-system-x86_64")
                time.sleep(random.uniform(0, 1.5))
                qemu.kill()
                assert ctr.stdout is not None
                rest = ctr.stdout.read().decode().splitlines()
                told = int(rest[-1]) if rest else told + 1
        with _task(vm, container) as ctr:
            found = _line(ctr)
            assert found.startswith("found "), found
            assert told <= int(found.split()[1]) <= told + 1
            vm.kill(container).checked()
            assert ctr.wait(_DEADLINE_S) == 137


@pytest.mark.timeout(1800)  # with --image-kills 50
def test_qemu_is_killed_while_it_writes(vm: Box, request: pytest.FixtureRequest) -> None:
    _killed_again_and_again(vm, request.config.getoption("--image-kills"))
    assert _images(vm) == []


@pytest.mark.on("2")
@pytest.mark.usefixtures("erofs")
@pytest.mark.timeout(1800)  # with --image-kills 50
def test_qemu_is_killed_while_it_writes_to_a_snapshot_s_own_image(vm: Box, request: pytest.FixtureRequest) -> None:
    _killed_again_and_again(vm, request.config.getoption("--image-kills"), "--snapshotter", "erofs")


_TWICE = "if [ -e /file ]; then cat /file; else echo written >/file; sync /file /; echo ready; sleep 1000; fi"


def test_the_shim_is_killed(vm: Box) -> None:
    """`qemubox gc` leaves the image, the next start has what was in it, and its end brings it back."""
    with _container(vm, "sh", "-c", _TWICE) as container:
        with _task(vm, container) as ctr:
            assert _line(ctr) == "ready"
            vm.shim(container).kill()
            vm.wait_stopped(container)
        (kept,) = [path.parent for path in _images(vm) if path.name == "writable.ext4"]
        swept = vm.qemubox.command("gc")
        assert f"left alone: writable layer {kept}: what was written to it has not come back to " in swept.stdout
        assert _run(vm, container) == "written"
        assert _images(vm) == []
        assert _run(vm, container) == "written"


@pytest.mark.keeps_image
def test_it_goes_once_its_snapshot_has(vm: Box) -> None:
    """With the next container that ends, or by `qemubox gc`."""
    for swept_by_gc in (False, True):
        with _container(vm, "sh", "-c", _TWICE) as container, _task(vm, container) as ctr:
            assert _line(ctr) == "ready"
            (qemu,) = vm.processes("qemu-system-x86_64")
            qemu.kill()
            assert ctr.wait(_DEADLINE_S) == 137
        assert len([path for path in _images(vm) if path.name == "writable.ext4"]) == 1

        def is_gone(swept_by_gc: bool = swept_by_gc) -> bool:
            if swept_by_gc:
                vm.qemubox.command("gc").check_returncode()
            else:
                vm.run("true").checked()
            return _images(vm) == []

        eventually(is_gone, "the image has gone", _DEADLINE_S)


@pytest.mark.release
def test_what_was_changed_behind_it_loses_and_the_log_says_so(vm: Box) -> None:
    """As `nerdctl cp` into a stopped container does it. The container has what it had on its disk."""
    with _container(vm, "sh", "-c", _TWICE + "; ls /copied") as container:
        with _task(vm, container) as ctr:
            assert _line(ctr) == "ready"
            (qemu,) = vm.processes("qemu-system-x86_64")
            qemu.kill()
            assert ctr.wait(_DEADLINE_S) == 137
        (upper,) = [
            path
            for path in vm.containerd.cell.directory.glob("root/*overlayfs/snapshots/*/fs")
            if not any(path.iterdir())
        ]
        (upper / "copied").write_text("x")
        offset = vm.containerd.log_size()
        assert _run(vm, container) == "written"
        assert "changed behind its writable image" in vm.containerd.log_tail(offset)


def test_a_pause_s_changes_are_not_seen_twice(vm: Box) -> None:
    """What a Pause brought back lies in the snapshot, and in the image that is taken up after the crash: once."""
    script = """
if [ -e /run2 ]; then ls /; cat /log; else
  echo one >/log; echo gone >/gone; sync; echo ready; while [ ! -e /go ]; do sleep 0.1; done
  rm /gone; echo two >>/log; touch /run2; sync; echo ready; sleep 1000; fi
"""
    with _container(vm, "sh", "-c", script) as container:
        with _task(vm, container) as ctr:
            assert _line(ctr) == "ready"
            vm.containerd.ctr("tasks", "pause", container).checked()
            vm.containerd.ctr("tasks", "resume", container).checked()
            vm.containerd.ctr("tasks", "exec", "--exec-id", "e", container, "touch", "/go").checked()
            assert _line(ctr) == "ready"
            (qemu,) = vm.processes("qemu-system-x86_64")
            qemu.kill()
            assert ctr.wait(_DEADLINE_S) == 137
        said = _run(vm, container).splitlines()
        assert said[-2:] == ["one", "two"]
        assert "gone" not in said
        said = _run(vm, container).splitlines()
        assert said[-2:] == ["one", "two"]
        assert "gone" not in said


def test_two_machines_cannot_have_one(vm: Box) -> None:
    with _container(vm, "sleep", "1000") as one, _container(vm, "true") as other, _task(vm, one):
        eventually(lambda: vm.status(one) == "RUNNING", "it runs", _DEADLINE_S)
        refused = vm.containerd.create_task(other, snapshot=one)
        assert "in use by another machine" in refused.error
        vm.kill(one).checked()
        vm.wait_stopped(one)


_FREED = """
dd if=/dev/urandom of=/big bs=1M count=%d 2>/dev/null; sync; echo written; read -r _
rm /big; sync; echo removed; read -r _
"""


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.usefixtures("erofs")
@pytest.mark.parametrize("snapshotter", ["overlayfs", "erofs"])
def test_what_is_deleted_gives_the_host_its_blocks_back(
    vm: Box, snapshotter: str, request: pytest.FixtureRequest
) -> None:
    size_mib = request.config.getoption("--freed-mib") if snapshotter == "overlayfs" else 192
    arguments = vm.run_arguments(
        vm.new_id(), ["sh", "-c", _FREED % size_mib], ["--rm", "--snapshotter", snapshotter], BUSYBOX
    )
    with vm.containerd.running(arguments, stdin=subprocess.PIPE) as ctr:
        assert ctr.stdin is not None
        assert _line(ctr) == "written"
        (image,) = [Path(path) for path in _open_images(vm)]
        written_mib = image.stat().st_blocks // 2048
        assert written_mib >= size_mib
        ctr.stdin.write(b"\n")
        assert _line(ctr) == "removed"
        eventually(
            lambda: image.stat().st_blocks // 2048 < written_mib - size_mib * 0.9, "blocks are free", _DEADLINE_S
        )
        ctr.stdin.write(b"\n")
        assert ctr.wait(_DEADLINE_S) == 0


def _open_images(vm: Box) -> set[str]:
    """The writable images that the one machine has open."""
    (qemu,) = vm.processes("qemu-system-x86_64")
    return {file.path for file in qemu.open_files() if file.path.endswith(("/writable.ext4", "/rwlayer.img"))}


@pytest.mark.release
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_created_container_leaves_no_image(vm: Box, number: int) -> None:
    with _container(vm, "true") as container:
        vm.containerd.create_task(container).checked()
        os.kill(vm.shim(container).pid, number)
        vm.wait_stopped(container)
        vm.containerd.ctr("tasks", "delete", "-f", container)
        eventually(lambda: _images(vm) == [], "nothing is kept", _DEADLINE_S)
