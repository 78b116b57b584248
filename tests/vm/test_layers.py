"""Root file systems: a hundred layers, what they replace and remove, and each snapshotter."""

from collections.abc import Iterator

import pytest

from harness.box import Box
from harness.images import BUSYBOX, LAYER_COUNT, LAYERS, MORE_LAYER_COUNT, MORE_LAYERS


@pytest.fixture
def layers(box: Box) -> Iterator[str]:
    """The image of a hundred layers."""
    box.containerd.import_image(LAYERS)
    yield LAYERS
    box.containerd.remove_image(LAYERS)


@pytest.mark.every_containerd
@pytest.mark.timeout(240)
def test_a_hundred_layers(box: Box, layers: str) -> None:
    """Each brought its file, the last replaced the others', ten of a hundred are not taken away again."""
    look = (
        "ls /layers | wc -l; cat /last /to-last /layers/1 /layers/99; ls /gone | wc -l; ls /etc/opaque;"
        " stat -c '%a %u %g' /setuid"
    )
    result = box.run("sh", "-c", look, image=layers, deadline_s=200)
    last = str(LAYER_COUNT - 1)
    assert result.text.split("\n") == [last, last, last, "1", "99", "10", "kept", "4755 12 34"], result.error


@pytest.mark.timeout(240)
def test_a_hundred_layers_are_written_over(box: Box, layers: str) -> None:
    """The writable layer lies on top of all, and is new each time."""
    command = "rm -r /layers /last; echo mine > /last; mkdir /layers; cat /last; ls /layers"
    for _ in range(2):
        assert box.run("sh", "-c", command, image=layers, deadline_s=200).text == "mine"


@pytest.mark.on("2")
@pytest.mark.timeout(240)
def test_more_layers_than_one_disk_has_partitions(box: Box) -> None:
    box.containerd.import_image(MORE_LAYERS)
    result = box.run("sh", "-c", "ls /layers | wc -l; cat /last", image=MORE_LAYERS, deadline_s=200)
    assert result.text.split("\n") == [str(MORE_LAYER_COUNT - 1)] * 2, result.error
    box.containerd.remove_image(MORE_LAYERS)


@pytest.fixture
def erofs(box: Box) -> tuple[str, ...]:
    """Options for the erofs snapshotter in block mode, with the image unpacked for it."""
    box.containerd.import_image(BUSYBOX, snapshotter="erofs")
    return ("--snapshotter", "erofs")


@pytest.mark.on("2")
def test_the_erofs_snapshotter(box: Box, erofs: tuple[str, ...]) -> None:
    result = box.run("sh", "-c", "uname -s; echo mine > /file; cat /file", options=erofs)
    assert (result.code, result.text) == (0, "Linux\nmine"), result.error


@pytest.mark.on("2")
@pytest.mark.timeout(300)
def test_a_hundred_layers_of_the_erofs_snapshotter(box: Box, erofs: tuple[str, ...]) -> None:
    box.containerd.import_image(LAYERS, snapshotter="erofs")
    result = box.run("sh", "-c", "ls /layers | wc -l; cat /last", image=LAYERS, options=erofs, deadline_s=200)
    assert result.text.split("\n") == ["99", "99"], result.error
    box.containerd.remove_image(LAYERS)


@pytest.mark.on("2")
def test_the_erofs_snapshotter_s_writable_layer_has_its_size(vm: Box, erofs: tuple[str, ...]) -> None:
    """default_size is 256 MiB in the tests' configuration: more is refused inside."""
    result = vm.run("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=300", options=erofs)
    assert result.code == 1
    assert "No space left on device" in result.error
