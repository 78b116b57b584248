"""The host's kernel: what its files say, and what it answers itself."""

import errno
import os

import pytest

from shim.check import kernel
from shim.check.line import Report
from shim.check.module import Module, module
from tests.unit.shim.check.conftest import FakeHost, Say

_LISTS = f"/lib/modules/{os.uname().release}"


def _whole(fake: FakeHost) -> None:
    fake.put("/proc/filesystems", "nodev\tproc\nnodev\toverlay\n\text4\n")
    fake.put("/dev/loop-control")
    fake.put("/dev/vhost-net")
    for kind in ("net", "mnt", "pid", "user"):
        fake.put(f"/proc/self/ns/{kind}")
    fake.put("/proc/sys/user/max_user_namespaces", "96365\n")
    fake.put("/proc/sys/fs/inotify/max_user_instances", "128\n")


async def test_all_is_there(fake: FakeHost, say: Say) -> None:
    _whole(fake)
    assert {line.level for line in await say(kernel.look)} == {"ok"}


async def test_nothing_is_there(fake: FakeHost, say: Say) -> None:
    """What the kernel answers itself (its version, prctl) is this host's."""
    said = await say(kernel.look)
    assert said.told("overlay")[0] == "warning"
    assert said.told("loop devices")[0] == "warning"
    assert said.told("/dev/vhost-net") == (
        "warning",
        "No such file or directory: QEMU carries the containers' frames itself, which is slower",
        "use a kernel with CONFIG_VHOST_NET",
    )
    assert said.told("namespaces")[:2] == ("failure", "the kernel has none of the kind net, mnt, pid")
    assert said.told("max_user_instances")[0] == "warning"


async def test_modules_that_can_be_loaded_are_named(fake: FakeHost, say: Say) -> None:
    _whole(fake)
    (fake.root / "dev/vhost-net").unlink()
    fake.put("/proc/filesystems", "ext4\n")
    fake.put(f"{_LISTS}/modules.dep", "kernel/fs/overlayfs/overlay.ko.xz:\nkernel/drivers/vhost/vhost_net.ko: x.ko\n")
    said = await say(kernel.look)
    assert said.told("overlay") == ("ok", "can be loaded", "")
    assert said.told("/dev/vhost-net")[2] == "modprobe vhost_net"


async def test_vhost_that_is_not_wanted_is_not_missed(fake: FakeHost, say: Say) -> None:
    fake.configure("network", vhost="off")
    assert (await say(kernel.look)).told("vhost-net")[0] == "ok"


async def test_limits(fake: FakeHost, say: Say) -> None:
    _whole(fake)
    fake.put("/proc/sys/user/max_user_namespaces", "0\n")
    fake.put("/proc/sys/fs/inotify/max_user_instances", "20\n")
    said = await say(kernel.look)
    assert said.told("namespaces")[::2] == ("warning", "sysctl -w user.max_user_namespaces=65536")
    assert said.told("max_user_instances")[::2] == ("warning", "sysctl -w fs.inotify.max_user_instances=1024")


@pytest.mark.parametrize(
    ("release", "level"),
    [("6.1.0-44-amd64", "ok"), ("5.9.0", "ok"), ("5.8.1", "warning"), ("5.2.21", "failure"), ("odd", "failure")],
)
def test_versions(release: str, level: str) -> None:
    report = Report("kernel")
    kernel._version(report, release)
    assert report.lines[0].level == level


@pytest.mark.parametrize(("number", "level"), [(0, "ok"), (errno.EINVAL, "failure"), (errno.EPERM, "failure")])
def test_markers(number: int, level: str) -> None:
    report = Report("kernel")
    kernel._markers(report, number)
    assert report.lines[0].level == level


def test_this_kernel_can_show_markers() -> None:
    assert kernel._map_size() == 0


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, Module.MISSING),
        ({"/sys/module/act_mirred/x": ""}, Module.THERE),
        ({f"{_LISTS}/modules.builtin": "kernel/net/sched/act_mirred.ko\n"}, Module.THERE),
        ({f"{_LISTS}/modules.dep": "kernel/net/sched/act-mirred.ko.zst: kernel/a.ko\n"}, Module.LOADABLE),
        ({f"{_LISTS}/modules.dep": "kernel/net/sched/not_act_mirred.ko: kernel/act_mirred.ko\n"}, Module.MISSING),
    ],
)
def test_where_a_module_is(files: dict[str, str], found: Module, fake: FakeHost) -> None:
    for name, text in files.items():
        fake.put(name, text)
    assert module(fake.host, "act_mirred") is found
