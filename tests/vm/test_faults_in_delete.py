"""A loss in the middle of Delete: the call is answered, nothing is told twice, and nothing is left."""

import contextlib
import random
import time

import psutil
import pytest

from harness.box import Box
from harness.deadline import eventually

pytestmark = [pytest.mark.timeout(150), pytest.mark.on("2")]

_DEADLINE_S = 40.0
# `ctr` itself takes a tenth of a second to begin, and Delete some tenths; each moment has a chance part.
_MOMENTS = 3
_SPAN_S = 0.6


@pytest.mark.release
@pytest.mark.keeps_image
@pytest.mark.parametrize("moment", range(_MOMENTS))
@pytest.mark.parametrize("victim", ["shim", "qemu"])
def test_a_loss_during_delete(vm: Box, victim: str, moment: int) -> None:
    delay_s = (moment + random.random()) * _SPAN_S / _MOMENTS
    with vm.events() as events:
        container = vm.start("sleep", "1000")
        lost = vm.shim(container) if victim == "shim" else vm.processes("qemu-system-x86_64")[0]
        vm.kill(container).checked()
        vm.wait_stopped(container)
        with vm.containerd.running(["tasks", "delete", container]) as ctr:
            time.sleep(delay_s)  # the moment is what is tried
            with contextlib.suppress(psutil.NoSuchProcess):
                lost.kill()
            ctr.wait(_DEADLINE_S)
        vm.containerd.ctr("tasks", "delete", "-f", container)
        vm.remove(container).checked()
        # Two shims for one id would tell of it, too.
        assert vm.run("echo", "again", container=container).text == "again"
        what = f"the second one's end is told; the {victim} of the first was lost after {delay_s:.3f} s"
        eventually(lambda: events.topics(container)[-1] == "/tasks/delete", what, _DEADLINE_S)
        ends = [event.fields.get("exit_status", 0) for event in events.of(container) if event.topic == "/tasks/exit"]
    # containerd, too, tells of an end where it finds a shim gone (cleanupAfterDeadShim), with the same status.
    assert ends[-1] == 0
    assert set(ends[:-1]) == {137}
    assert len(ends) == 2 or victim == "shim"
