"""A shim killed at any moment of Create leaves nothing: not its machine, mounts, files, sockets.

One that is killed as late as after Start leaves the writable image, as any other.
"""

import contextlib
import random
import time

import psutil
import pytest

from harness.box import Box
from harness.deadline import eventually
from harness.images import BUSYBOX

# Create takes 2 to 4 s under TCG. The moments are spread over it evenly, each with a chance part,
# so that different runs of the tests try different ones; the failing moment is in the test's name and message.
_SPAN_S = 3.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each moment, of which `--moments` says how many there are."""
    if "moment" in metafunc.fixturenames:
        metafunc.parametrize("moment", range(metafunc.config.getoption("moments")))


@pytest.mark.each_case
@pytest.mark.keeps_image
@pytest.mark.on("1.6")
def test_kill_of_the_shim_during_create(vm: Box, moment: int, pytestconfig: pytest.Config) -> None:
    delay_s = (moment + random.random()) * _SPAN_S / pytestconfig.getoption("moments")
    container = vm.new_id()
    arguments = vm.run_arguments(container, ["sleep", "1000"], ["-d", "--null-io"], BUSYBOX)
    with vm.containerd.running(arguments) as ctr:
        eventually(lambda: _shims(vm, container), f"{container} has a shim", 20)
        time.sleep(delay_s)  # the moment is what is tried, not something that is waited for
        eventually(lambda: _kill_all(_shims(vm, container)), f"{container} has a shim to kill", 20)
        # `start` may have forked the daemon after it was looked for and before it was killed.
        eventually(lambda: not _kill_all(_shims(vm, container)), f"{container} has no shim any more", 20)
        ctr.wait(40)
    vm.wait_stopped(container)
    vm.containerd.ctr("tasks", "delete", "-f", container)
    vm.containerd.ctr("containers", "delete", container)
    # containerd may still be running the `delete` of the dead shim, whose answer `tasks delete` does not wait for.
    eventually(
        lambda: not vm.processes(container), f"nothing is left of one killed {delay_s:.3f} s after its start", 10
    )


def _shims(vm: Box, container: str) -> list[psutil.Process]:
    """The shim's `start` process, its daemon, or both."""
    return vm.processes(f"-id {container} ", "containerd-shim-", " start ")


def _kill_all(processes: list[psutil.Process]) -> int:
    """How many of them there still were."""
    killed = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            killed += 1
    return killed
