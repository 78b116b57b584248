"""A machine that does not come up: said in which phase, with the console's last words, in time."""

import time

from harness.box import Box
from harness.messages import assert_one_clear_line


def test_a_guest_that_never_answers(vm: Box) -> None:
    """Its kernel waits for a root disk that never comes."""
    words = "root=/dev/nothing rootwait loglevel=7"
    with vm.qemubox.changed({"vm": {"boot_timeout_s": 8, "kernel_args": words}}):
        begin = time.monotonic()
        result = vm.run("true")
        took_s = time.monotonic() - begin
    assert_one_clear_line(result, "8 s", "[Ww]aiting for root device")
    assert 8 <= took_s < 20


def test_a_guest_whose_first_process_dies(vm: Box) -> None:
    """The kernel's answer to the death of PID 1 is a panic: known at once, not after the boot's deadline."""
    with vm.qemubox.changed({"vm": {"boot_timeout_s": 40, "kernel_args": "init=/nowhere"}}):
        begin = time.monotonic()
        result = vm.run("true")
        took_s = time.monotonic() - begin
    assert_one_clear_line(result, "[Kk]ernel panic", "/nowhere")
    assert took_s < 20


def test_a_kernel_that_is_none(vm: Box) -> None:
    """QEMU's own words about it."""
    kernel = vm.containerd.cell.directory / "no-kernel"
    kernel.write_bytes(b"this is no kernel\n" * 1000)
    kernel.chmod(0o644)
    with vm.qemubox.changed({"vm": {"boot_timeout_s": 8, "kernel": str(kernel)}}):
        assert_one_clear_line(vm.run("true"), "no-kernel|no answer|8 s")


def test_an_image_that_is_none(vm: Box) -> None:
    image = vm.containerd.cell.directory / "no-image"
    image.write_bytes(bytes(1 << 20))
    image.chmod(0o644)
    with vm.qemubox.changed({"vm": {"boot_timeout_s": 40, "image": str(image)}}):
        assert_one_clear_line(vm.run("true"), "[Kk]ernel panic", "(mount|root)")
