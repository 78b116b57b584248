"""`--privileged`: a container has all devices of its machine, and none of the host."""

from typing import Final

from harness.box import Box
from shim.privileged import DEVICES

_ASKED: Final = ("--privileged",)
_USUAL: Final = {"console", "core", "fd", "full", "mqueue", "net", "null", "ptmx", "pts", "random", "shm", "stderr"}
_ALSO_USUAL: Final = {"stdin", "stdout", "tty", "urandom", "zero"}


def test_the_devices_are_the_machine_s(vm: Box) -> None:
    nodes = [str(device["path"]) for device in DEVICES]
    character = [str(device["path"]) for device in DEVICES if device["type"] == "c"]
    said = vm.run("sh", "-c", "ls /dev; for node in $0; do exec 3<>$node; done", " ".join(character), options=_ASKED)
    names = {*said.checked().text.split()}
    assert {node.split("/")[2] for node in nodes} <= names
    assert names <= {node.split("/")[2] for node in nodes} | _USUAL | _ALSO_USUAL


def test_a_file_becomes_a_disk(vm: Box) -> None:
    script = "echo what is in it >/image; truncate -s 4096 /image; losetup -f /image; head -n 1 /dev/loop0"
    assert vm.run("sh", "-c", script, options=_ASKED).checked().text == "what is in it"


def test_what_is_of_the_kernel_can_be_written_to(vm: Box) -> None:
    """/proc and /sys are the machine's; cgroups, where they are asked for."""
    cgroups = ("--with-ns", "cgroup:", "--mount", "type=cgroup2,src=cgroup,dst=/sys/fs/cgroup,options=rw")
    script = (
        "echo 7 >/proc/sys/vm/swappiness; cat /proc/sys/vm/swappiness; grep ' /sys ' /proc/mounts | cut -d ' ' -f 4;"
        " mkdir /sys/fs/cgroup/inner; echo $$ >/sys/fs/cgroup/inner/cgroup.procs; cat /proc/self/cgroup"
    )
    swappiness, options, cgroup = vm.run("sh", "-c", script, options=(*_ASKED, *cgroups)).checked().text.splitlines()
    assert swappiness == "7"
    assert "rw" in options.split(",")
    assert cgroup == "0::/inner"
