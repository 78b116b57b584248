"""What a template has made ready for its clones' containers is used there, and confines as much as what it replaces.

Used: vminitd says what crun calls the container, on the console of a machine whose kernel shows debug messages. The
pinned crun (initrd/README.md) holds the rest: that it reads a configuration from a FIFO, and starts by a byte in one.
"""

import os
import pty
import re
import subprocess
from collections.abc import Iterator

import pytest

from harness.box import Box
from harness.deadline import eventually
from harness.images import BUSYBOX

_DEADLINE_S = 40.0
_OPEN_A_DISK = "mknod /disk b 254 0; cat /disk >/dev/null"


@pytest.fixture
def talkative(vm: Box) -> Iterator[Box]:
    """Machines, and their template, whose console has vminitd's debug messages."""
    with vm.qemubox.changed({"vm": {"kernel_args": "loglevel=8"}}):
        assert vm.qemubox.command("template", "build").returncode == 0
        yield vm
    # In the place of that one again comes the one that the other tests start from.
    assert vm.qemubox.command("template", "build").returncode == 0


def _crun_s_name(box: Box, container: str) -> str:
    """What crun calls it."""
    said = f"created container={container} pid=\\d+ crun=(\\S+)"

    def find() -> str:
        consoles = box.containerd.cell.path("/run/qemubox/vm").glob("*/console")
        found = [re.search(said, path.read_text(errors="replace")) for path in consoles]
        return next((each[1] for each in found if each), "")

    eventually(lambda: bool(find()), f"the console names {container}", _DEADLINE_S)
    return find()


@pytest.mark.on("2")
def test_the_crun_of_the_template_makes_a_clone_s_first_container(talkative: Box) -> None:
    """One is there for three pipes, one for a terminal; what neither is for gets a crun of its own."""
    box = talkative
    container = box.new_id()
    arguments = box.run_arguments(container, ["sh", "-c", "echo ready; cat"], ["--rm"], BUSYBOX)
    with box.containerd.running(arguments, stdin=subprocess.PIPE) as ctr:
        assert ctr.stdin is not None
        assert ctr.stdout is not None
        assert ctr.stdout.read(6) == b"ready\n"  # before that, ctr may forget the end of its input
        assert _crun_s_name(box, container) == "+pipes"
        ctr.stdin.close()
        assert ctr.wait(_DEADLINE_S) == 0
    container = box.new_id()
    ours, theirs = pty.openpty()
    try:
        arguments = box.run_arguments(container, ["sh", "-c", "read line"], ["--rm", "-t"], BUSYBOX)
        with box.containerd.running(arguments, stdin=theirs, stdout=theirs) as ctr:
            os.close(theirs)
            assert _crun_s_name(box, container) == "+terminal"
            os.write(ours, b"\n")
            assert ctr.wait(_DEADLINE_S) == 0
    finally:
        os.close(ours)
    container = box.start("sleep", "1000")
    assert _crun_s_name(box, container) == container
    box.kill(container).checked()
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def test_a_disk_of_the_machine_cannot_be_opened(box: Box) -> None:
    """By root with CAP_MKNOD, as the device cgroup has it, in a clone and in a machine that has booted."""
    refused = box.run("sh", "-c", _OPEN_A_DISK)
    assert refused.code != 0
    assert "Operation not permitted" in refused.error
    assert box.run("sh", "-c", "echo >/dev/null && head -c 3 /dev/zero | wc -c").checked().text.strip() == "3"


@pytest.mark.on("2")
def test_the_usual_rules_for_devices_are_the_template_s(vm: Box) -> None:
    assert vm.run("cat", "/proc/self/cgroup").checked().text.startswith("0::/qemubox/+devices/")
    with vm.qemubox.changed({"template": {"mode": "off"}}):
        booted = vm.run("sh", "-c", f"cat /proc/self/cgroup; {_OPEN_A_DISK}")
    assert booted.text.startswith("0::/qemubox/c")
    assert "Operation not permitted" in booted.error
