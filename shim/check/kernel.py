"""The host's kernel: its version, what it has, and its limits. Network and accelerator are tried elsewhere."""

import ctypes
import errno
import os
import re
from typing import Final

from shim.check.host import Host
from shim.check.line import Report
from shim.check.module import Module, module

# pidfd_open(2); without it no shim can wait for QEMU.
_OLDEST: Final = (5, 3)
# bpf(2), SK_LOOKUP: port-forward (docs/limitations.md).
_BEST: Final = (5, 9)
# Each container with /etc/hosts and its like takes one of them; 128 is the kernel's default.
_INOTIFY_INSTANCES: Final = 128
_PR_SET_MM, _PR_SET_MM_MAP_SIZE = 35, 15


async def look(host: Host, report: Report) -> None:
    """See the module."""
    _version(report, os.uname().release)
    _file_systems(host, report)
    _vhost_net(host, report)
    _namespaces(host, report)
    _markers(report, _map_size())
    _inotify(host, report)


def _version(report: Report, release: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", release)
    numbers = (int(found[1]), int(found[2])) if found else (0, 0)
    if numbers < _OLDEST:
        report.failure("version", f"Linux {release} is older than 5.3", "use a newer kernel")
    elif numbers < _BEST:
        report.warning(
            "version", f"Linux {release} is older than 5.9: port-forward does not work", "use a newer kernel"
        )
    else:
        report.ok("version", f"Linux {release}")


def _file_systems(host: Host, report: Report) -> None:
    known = set((host.text("/proc/filesystems") or "").split())
    if "overlay" in known:
        report.ok("overlay", "there")
    elif module(host, "overlay") is Module.LOADABLE:
        report.ok("overlay", "can be loaded")
    else:
        report.warning(
            "overlay",
            "the kernel has none: the overlayfs snapshotter, containerd's default, does not work",
            "modprobe overlay, or use another snapshotter (docs/storage.md)",
        )
    if host.path("/dev/loop-control").exists() or module(host, "loop") is not Module.MISSING:
        report.ok("loop devices", "there")
    else:
        report.warning(
            "loop devices",
            "the kernel has none: containerd cannot mount the erofs and blockfile snapshotters' images",
            "modprobe loop, or use the overlayfs snapshotter",
        )


def _vhost_net(host: Host, report: Report) -> None:
    if host.config.network.vhost == "off":
        report.ok("vhost-net", 'not used: network.vhost = "off"')
        return
    try:
        os.close(os.open(host.path("/dev/vhost-net"), os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        can = module(host, "vhost_net")
        mend = "modprobe vhost_net" if can is not Module.MISSING else "use a kernel with CONFIG_VHOST_NET"
        report.warning(
            "/dev/vhost-net", f"{error.strerror}: QEMU carries the containers' frames itself, which is slower", mend
        )
    else:
        report.ok("/dev/vhost-net", "can be opened: the kernel carries the containers' frames")


def _namespaces(host: Host, report: Report) -> None:
    missing = [kind for kind in ("net", "mnt", "pid", "user") if not host.path(f"/proc/self/ns/{kind}").exists()]
    needed = [kind for kind in missing if kind != "user"]
    if needed:
        report.failure("namespaces", f"the kernel has none of the kind {', '.join(needed)}", "use another kernel")
    elif missing or host.number("/proc/sys/user/max_user_namespaces") == 0:
        report.warning(
            "namespaces",
            "no user namespace can be made: containers that ask for one are refused",
            "sysctl -w user.max_user_namespaces=65536",
        )
    else:
        report.ok("namespaces", "network, mount, process and user namespaces")


def _map_size() -> int:
    """The errno of asking how large a prctl_mm_map is, which changes nothing: prctl(2)."""
    size = ctypes.c_uint(0)
    libc = ctypes.CDLL(None, use_errno=True)
    done = libc.prctl(_PR_SET_MM, ctypes.c_ulong(_PR_SET_MM_MAP_SIZE), ctypes.byref(size), ctypes.c_ulong(0), 0)
    return 0 if done == 0 else ctypes.get_errno()


def _markers(report: Report, number: int) -> None:
    if number == 0:
        report.ok("CONFIG_CHECKPOINT_RESTORE", "there")
    elif number == errno.EINVAL:
        report.failure(
            "CONFIG_CHECKPOINT_RESTORE",
            "the kernel was built without it: containers are refused",
            "use a distribution's kernel (docs/limitations.md)",
        )
    else:
        report.failure(
            "prctl PR_SET_MM", f"{os.strerror(number)}: containers are refused", "run containerd with CAP_SYS_RESOURCE"
        )


def _inotify(host: Host, report: Report) -> None:
    what = "fs.inotify.max_user_instances"
    limit = host.number("/proc/sys/fs/inotify/max_user_instances")
    if limit is None:
        report.warning(
            what, "the kernel has no inotify: changes of /etc/hosts do not reach containers", "use another kernel"
        )
    elif limit < _INOTIFY_INSTANCES:
        report.warning(
            what,
            f"{limit}: no more containers than that hear of changes of their /etc/hosts",
            f"sysctl -w {what}=1024",
        )
    else:
        report.ok(what, f"{limit}: as many containers at most hear of changes of their /etc/hosts")
