"""Disks of the host, and their images, as volumes of a container."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, Box
from harness.deadline import eventually
from harness.messages import assert_one_clear_line

pytestmark = pytest.mark.timeout(150)

_MIB = {"ext4": 32, "xfs": 320, "btrfs": 128, "raw": 8}
Make = Callable[[str], Path]


@pytest.fixture
def make(box: Box) -> Iterator[Make]:
    """Makes the image of a disk with a file system; removed at the end."""
    made: list[Path] = []

    def image(kind: str) -> Path:
        path = box.containerd.cell.directory / f"{box.new_id()}.{kind}"
        with path.open("wb") as file:
            file.truncate(_MIB[kind] << 20)
        made.append(path)
        if kind != "raw":
            _told(f"mkfs.{kind}", "-q", str(path))
        return path

    yield image
    for path in made:
        path.unlink()


def _told(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def _mounted(source: Path, kind: str, at: str, *options: str) -> tuple[str, str]:
    asked = f",options={':'.join(options)}" if options else ""
    return "--mount", f"type={kind},src={source},dst={at}{asked}"


def _content(image: Path, name: str) -> str:
    """A file of an ext4 image. Nothing is mounted for it."""
    return _told("debugfs", "-R", f"cat {name}", str(image))


def _assert_clean(image: Path) -> None:
    """Unmounted in good order: nobody has to recover anything."""
    superblock = _told("dumpe2fs", "-h", str(image))
    assert "needs_recovery" not in superblock
    assert "Filesystem state:         clean" in superblock
    _told("e2fsck", "-fn", str(image))


def test_a_device_is_mounted(box: Box, make: Make) -> None:
    """As runc mounts it, with the options of the mount and of the file system."""
    image = make("ext4")
    loop = _told("losetup", "--find", "--show", str(image)).strip()
    try:
        script = "id -u; echo written >/data/file; chown 5:6 /data/file; grep ' /data ' /proc/mounts"
        mount = _mounted(Path(loop), "ext4", "/data", "nosuid", "noexec", "noatime", "data=journal")
        said = box.run("sh", "-c", script, options=mount).checked().text.splitlines()
    finally:
        _told("losetup", "--detach", loop)
    assert said[0] == "0"
    _, at, kind, options, *_ = said[1].split()
    assert (at, kind) == ("/data", "ext4")
    assert {"rw", "nosuid", "noexec", "noatime", "data=journal"} <= {*options.split(",")}
    assert _content(image, "file") == "written\n"
    _assert_clean(image)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_an_image_keeps_what_is_written(vm: Box, make: Make, kind: str) -> None:
    image = make(kind)
    mount = _mounted(image, kind, "/data", "loop")
    first = vm.run("sh", "-c", "cat /data/* 2>&1; echo kept >/data/file; grep ' /data ' /proc/mounts", options=mount)
    assert first.checked().text.splitlines()[-1].split()[2] == kind
    read_only = _mounted(image, kind, "/data", "ro")
    second = vm.run("sh", "-c", "cat /data/file; echo no >/data/file", options=read_only)
    assert second.text == "kept"
    assert "Read-only file system" in second.error
    assert second.code != 0
    if kind == "ext4":
        _assert_clean(image)


@pytest.mark.release
@pytest.mark.on("2")
@pytest.mark.parametrize("count", [2, 6])
def test_a_container_has_several(vm: Box, make: Make, count: int) -> None:
    images = [make("ext4") for _ in range(count)]
    mounts = [word for number, image in enumerate(images) for word in _mounted(image, "ext4", f"/data{number}")]
    script = f"for n in $(seq 0 {count - 1}); do echo $n >/data$n/file; done"
    vm.run("sh", "-c", script, options=mounts).checked()
    assert [_content(image, "file") for image in images] == [f"{number}\n" for number in range(count)]
    for image in images:
        _assert_clean(image)


@pytest.mark.release
@pytest.mark.on("2")
def test_a_raw_disk_is_a_device(vm: Box, make: Make) -> None:
    """Beside the root file system's own, which the container cannot open even if it makes the node."""
    image, other = make("raw"), make("raw")
    other.write_bytes(b"x" * (1 << 20))
    mounts = (
        *_mounted(image, "raw", "/dev/xvda", "mode=0640", "uid=7"),
        *_mounted(other, "raw", "/disks/other", "ro"),
    )
    script = """
        stat -c '%F %a %u' /dev/xvda
        printf hello | dd of=/dev/xvda bs=512 seek=3 conv=notrunc,fsync 2>/dev/null
        dd if=/disks/other bs=1 count=4 2>/dev/null; echo
        dd if=/dev/zero of=/disks/other bs=512 count=1 2>&1 | grep -o 'Operation not permitted'
        for name in /sys/block/vd*; do
            mknod /node b $(tr : ' ' <$name/dev); dd if=/node of=/dev/null count=1 2>/dev/null && echo opened; rm /node
        done
    """
    said = vm.run("sh", "-c", script, options=mounts).checked().text.splitlines()
    assert said == ["block special file 640 7", "xxxx", "Operation not permitted", "opened", "opened"]
    assert image.read_bytes()[3 * 512 :][:5] == b"hello"


def test_a_device_is_given_by_its_path(box: Box, make: Make) -> None:
    """As runc gives it: the container may open the device's node, with whatever numbers."""
    image = make("raw")
    loop = _told("losetup", "--find", "--show", str(image)).strip()
    try:
        script = f"test -b {loop} && printf hello | dd of={loop} conv=notrunc,fsync 2>/dev/null && head -c 5 {loop}"
        assert box.run("sh", "-c", script, options=("--device", loop)).checked().text == "hello"
    finally:
        _told("losetup", "--detach", loop)
    assert image.read_bytes()[:5] == b"hello"


@pytest.mark.keeps_image
def test_what_was_synced_outlives_a_shim_that_is_killed(vm: Box, make: Make) -> None:
    image = make("ext4")
    script = "echo safe >/data/file; sync /data/file; touch /data/ready; sync; while :; do echo x >>/data/more; done"
    container = vm.start("sh", "-c", script, options=("--null-io", *_mounted(image, "ext4", "/data")))
    eventually(lambda: "ready" in _told("debugfs", "-R", "ls /", str(image)), "it has written", RUN_DEADLINE_S)
    qemu = vm.processes("qemu-system", "-name")
    vm.shim(container).kill()
    vm.wait_stopped(container)
    for process in qemu:
        process.wait(RUN_DEADLINE_S)
    vm.delete_task(container)
    vm.remove(container).checked()
    assert vm.run("cat", "/data/file", options=_mounted(image, "ext4", "/data")).checked().text == "safe"
    _assert_clean(image)


@pytest.mark.on("2")
def test_a_pause_brings_it_to_the_disk(vm: Box, make: Make) -> None:
    image = make("ext4")
    script = "i=0; while :; do i=$((i+1)); echo $i >>/data/file; echo $i; done"
    mount = _mounted(image, "ext4", "/data")
    with vm.running("sh", "-c", script, options=mount) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        (line,) = vm.containerd.ctr("tasks", "ls", "-q").checked().text.splitlines()
        vm.containerd.ctr("tasks", "pause", line).checked()
        superblock = _told("dumpe2fs", "-h", str(image))
        assert "needs_recovery" not in superblock  # frozen, with nothing left in the journal
        assert _content(image, "file").startswith("1\n")
        vm.containerd.ctr("tasks", "resume", line).checked()
        vm.kill(line).checked()
        process.communicate(timeout=RUN_DEADLINE_S)
    _assert_clean(image)


def test_two_machines_never_write_one(vm: Box, make: Make) -> None:
    image = make("ext4")
    mount = _mounted(image, "ext4", "/data")
    container = vm.start("sleep", "1d", options=("--null-io", *mount))
    assert_one_clear_line(vm.run("true", options=mount), f"cannot mount {image} at /data", "in use by another machine")
    read_only = _mounted(image, "ext4", "/data", "ro")
    assert_one_clear_line(vm.run("true", options=read_only), f"cannot mount {image} at /data")
    vm.kill(container).checked()
    vm.wait_stopped(container)
    vm.delete_task(container).checked()
    vm.remove(container).checked()
    vm.run("true", options=(*read_only,)).checked()


@pytest.mark.on("2")
@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("ext4", (), ("the disk for /data as ext4 with defaults", "Structure needs cleaning|Invalid argument")),
        ("xfs", ("noatime",), ("the disk for /data as xfs with noatime", "Structure needs cleaning|[Ii]nvalid|magic")),
    ],
)
def test_a_corrupt_image_is_one_clear_line(
    vm: Box, make: Make, kind: str, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    image = make(kind)
    with image.open("r+b") as file:
        file.write(b"x" * 8192)
    result = vm.run("true", options=_mounted(image, kind, "/data", *options))
    assert_one_clear_line(result, *words)
