"""The warm parent: shims are its forks, and whatever becomes of it, containers run on."""

import signal

import pytest

from harness.box import Box


def _is_fork_of_the_service(vm: Box, container: str) -> bool:
    return vm.shim(container).ppid() == vm.containerd.service.pid


def _end(vm: Box, container: str) -> None:
    vm.kill(container).checked()
    vm.wait_stopped(container)
    vm.delete_task(container)
    vm.remove(container).checked()


@pytest.fixture
def service(vm: Box) -> Box:
    """A box whose service runs, also where the other tests are to be without."""
    if not vm.containerd.service.running:
        vm.containerd.service.start()
    return vm


@pytest.mark.every_containerd
def test_a_shim_is_a_fork_of_the_service(service: Box) -> None:
    """It shows what a shim shows that containerd has executed, and has little memory of its own."""
    container = service.start("sleep", "1000")
    shim = service.shim(container)
    assert _is_fork_of_the_service(service, container)
    words = shim.cmdline()
    assert words[words.index("-id") + 1] == container
    assert words[-1] == "start"
    assert words[2] == str(service.qemubox.bin / "containerd-shim-qemubox-v1")
    assert shim.name().startswith("containerd-shim")
    assert shim.environ()["QEMUBOX_CONFIG"] == str(service.qemubox.config)
    # 10.4 MiB where one that `start` has forked has 20 and more (docs/decisions/0010-warm-parent.md).
    assert shim.memory_full_info().uss < 13 << 20
    anchors = service.processes("qemubox-anchor-")
    assert len(anchors) == 2
    assert all(anchor.memory_full_info().uss < 2 << 20 for anchor in anchors)
    _end(service, container)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_containers_run_on_without_the_service(service: Box, number: int) -> None:
    """And new ones start without it, and with the next one."""
    before = service.start("sleep", "1000")
    service.containerd.service.stop(number)
    try:
        assert service.status(before) == "RUNNING"
        without = service.start("sleep", "1000")
        assert not _is_fork_of_the_service(service, without)
    finally:
        service.containerd.service.start()
    assert service.run("echo", "with").text == "with"
    _end(service, before)
    _end(service, without)
