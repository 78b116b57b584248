"""Layers as images: every inode is as with runc, and what is damaged is made anew or named.

The image has one layer that is filled on the host, as no tar file could, before anything has started from it.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.image import busybox_layer, directory, file, write_archive
from harness.box import RUN_DEADLINE_S, RUNTIMES, Box
from harness.containerd import Containerd
from harness.deadline import eventually
from harness.distros import lister
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line
from tests.unit.shim.rootfs.everything import fill

# The first test imports the image and fills its layer, too.
pytestmark = pytest.mark.timeout(240)

_IMAGE = "localhost/qemubox/everything:1"
_BIG = random.Random(7).randbytes(4 << 20)
_MD5 = hashlib.md5(_BIG).hexdigest()
# Attributes named trusted.* are shown to nobody else.
_ALL_ATTRIBUTES = ("--cap-add", "CAP_SYS_ADMIN")


@pytest.fixture(scope="module")
def everything(containerd: Containerd) -> Iterator[Path]:
    """The directory of the image's upper layer on the host, with everything in it."""
    archive = containerd.cell.directory / "tmp" / "everything.tar"
    upper = [directory("everything"), file("lister", lister(), 0o755), file("big", _BIG)]
    write_archive(archive, _IMAGE, [busybox_layer(), upper])
    containerd.ctr("images", "import", str(archive)).checked()
    archive.unlink()
    (layer,) = (containerd.cell.directory / "root").glob("*overlayfs/snapshots/*/fs/everything")
    fill(layer)
    # Whiteouts of nothing: an overlay lists them and then has none such. What they hide, the unit tests look at.
    for name in ("whiteout", "hard whiteout"):
        (layer / name).unlink()
    # That is the same all the time; the directory's own is set with each file in it.
    os.utime(layer, ns=(0, 7))
    yield layer.parent
    containerd.remove_image(_IMAGE)


def _blobs(vm: Box) -> list[Path]:
    return list((vm.qemubox.cache / "layers" / "blobs").iterdir())


def _tree(vm: Box, runtime: str) -> list[str]:
    """Every inode that a container sees, a line each (harness/lister.c)."""
    arguments = ["run", "--rm", *_ALL_ATTRIBUTES, "--runtime", RUNTIMES[runtime], _IMAGE, vm.new_id(), "/lister"]
    return vm.containerd.ctr(*arguments, deadline_s=RUN_DEADLINE_S).checked().stdout.decode().splitlines()


def test_every_inode_of_a_layer(vm: Box, everything: Path) -> None:
    vm.qemubox.command("cache", "prune", "--all")  # other tests' images are larger
    seen, expected = _tree(vm, "qemubox"), _tree(vm, "runc")
    assert len([line for line in expected if line.startswith("/everything/")]) > 3800
    assert any("system.posix_acl_default" in line for line in expected)
    assert any("trusted.of.a.link" in line for line in expected)
    different = sorted({*seen} ^ {*expected}, key=lambda line: line.split("\t"))
    assert different == [], "\n".join(different[:20])
    # With its holes left out: the layer's files have 8 MiB of them.
    large = max(image.stat().st_size for image in _blobs(vm))
    assert large < 4 * len(_BIG)


@pytest.mark.release
def test_what_was_damaged_is_made_anew(vm: Box, everything: Path) -> None:
    """Cut short, overwritten or gone: the next start has its layers all the same, and says so."""
    vm.qemubox.command("cache", "prune", "--all")
    read = ("sh", "-c", "md5sum /big /bin/busybox; ls /everything/many | wc -l")
    first = vm.run(*read, image=_IMAGE).checked().text
    for number, image in enumerate(sorted(_blobs(vm), key=lambda image: image.stat().st_size)):
        if number % 3 == 0:
            os.truncate(image, image.stat().st_size // 2)
        elif number % 3 == 1:
            image.write_bytes(bytes(image.stat().st_size))
        else:
            image.unlink()
    offset = vm.containerd.log_size()
    assert vm.run(*read, image=_IMAGE).checked().text == first
    assert "an image of the layer cache is made anew" in vm.containerd.log_tail(offset, 1 << 20)
    assert vm.qemubox.command("cache", "verify").returncode == 0


def test_an_image_that_loses_its_end_under_a_running_container(vm: Box, everything: Path) -> None:
    """What is missing reads as zeros, which no machine dies of; the next start has it all."""
    container = vm.start("sleep", "1000", image=_IMAGE)
    (line,) = [image for image in _shown(vm) if str(everything) in str(image["layers"])]
    assert line["users"] == 1
    os.truncate(vm.qemubox.cache / "layers" / "blobs" / f"{line['digest']}.erofs", 1 << 20)
    read = vm.containerd.ctr("tasks", "exec", "--exec-id", "e", container, "md5sum", "/big")
    assert read.text.split()[:1] != [_MD5]
    assert vm.status(container) == "RUNNING"
    vm.kill(container)
    vm.wait_stopped(container)
    vm.delete_task(container).checked()
    vm.remove(container).checked()
    assert vm.run("md5sum", "/big", image=_IMAGE).checked().text.split()[0] == _MD5


def _shown(vm: Box) -> list[dict[str, object]]:
    images = json.loads(vm.qemubox.command("cache", "show", "--json").stdout)["images"]
    assert isinstance(images, list)
    return images


def test_what_a_container_uses_is_not_pruned(vm: Box) -> None:
    container = vm.start("sleep", "1000")
    assert vm.qemubox.command("cache", "prune", "--all").returncode == 0
    assert [image["users"] for image in _shown(vm)] == [1]
    vm.containerd.ctr("tasks", "exec", "--exec-id", "e", container, "sort", "--help").checked()
    vm.kill(container)
    vm.wait_stopped(container)
    vm.delete_task(container).checked()
    vm.remove(container).checked()
    eventually(lambda: [image["users"] for image in _shown(vm)] == [0], "nobody uses the image", 10)
    assert vm.qemubox.command("cache", "prune", "--all").returncode == 0
    assert _shown(vm) == []


@pytest.mark.release
@pytest.mark.on("2")
def test_a_corrupt_image_of_the_erofs_snapshotter(vm: Box) -> None:
    """Its superblock is whole, its root directory is not: the guest finds that, and the file is named."""
    vm.containerd.import_image(BUSYBOX, snapshotter="erofs")
    (image,) = (vm.containerd.cell.directory / "root").glob("*erofs/snapshots/*/layer.erofs")
    container = vm.new_id()
    options = ("--snapshotter", "erofs", "--runtime", RUNTIMES["qemubox"])
    vm.containerd.ctr("containers", "create", *options, BUSYBOX, container, "true").checked()
    whole = image.read_bytes()
    try:
        with image.open("r+b") as damaged:
            damaged.seek(1024 + 128)
            damaged.write(b"\xff" * (4096 - 1024 - 128))
        result = vm.containerd.ctr("tasks", "start", container)
        assert_one_clear_line(result, "cannot mount erofs on disk", str(image))
        assert vm.processes("qemu-system") == []
    finally:
        image.write_bytes(whole)
    vm.remove(container).checked()
    assert vm.run("true", options=("--snapshotter", "erofs")).code == 0
