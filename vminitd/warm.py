"""What a machine does while it waits to become a template: it makes one container, so that its clones' first is not.

The first container of a machine is the slow one (0.43 s under TCG, later ones 0.1, 2026-11): crun and its libraries
are read from the disk, the kernel sets up mounts, namespaces and filters for the first time. And what can be made for
a clone's own first container before anybody knows it is made (`parked`, `devices`). Nothing of it belongs to anybody:
no name, no key, no random number is made, and boot_id is not read, which the kernel makes up when it is first asked
for. Entropy, time and name come with Configure, in each clone.
"""

import asyncio
import json
import os
import shutil
from contextlib import suppress

from vminitd import log
from vminitd.boot import RUN_DIR
from vminitd.crun import PROGRAM, Crun
from vminitd.devices import RULES, SHARED, check_attached
from vminitd.errors import CrunError, KernelError
from vminitd.launch import Machinery
from vminitd.parked import Shape, park
from vminitd.reaper import Reaper

NAME = "warm-up"

_LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}
_PLAIN = ["nosuid", "noexec", "nodev"]


def specification(rootfs: str) -> bytes:
    """A container as containerd's default is one, as far as costs go; its program is what is there: crun. Pure."""
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _PLAIN},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*_PLAIN, "mode=1777"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _PLAIN},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_PLAIN, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*_PLAIN, "ro"]},
        {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"]},
    ]
    capabilities = ["CAP_CHOWN", "CAP_KILL"]
    process = {
        "user": {"uid": 0, "gid": 0},
        "args": [PROGRAM, "--version"],
        "env": ["PATH=/usr/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }
    linux = {
        "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
        "cgroupsPath": SHARED,
        "resources": {"devices": RULES},
        "seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["kexec_load", "bpf"], "action": "SCMP_ACT_ERRNO"}],
        },
        "maskedPaths": ["/proc/kcore", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys"],
    }
    return json.dumps(
        {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": rootfs, "readonly": True},
            "hostname": NAME,
            "mounts": mounts,
            "linux": linux,
        }
    ).encode()


async def warm(machinery: Machinery) -> None:
    """Makes, runs and removes a container, and begins the next. What fails is left out, and said on the console."""
    # asyncio imports its module for threads with the first one: 8 500 blocks and 60 ms of each clone otherwise.
    await asyncio.to_thread(os.getpid)
    machinery.prepared.device_rules = await _run_one(machinery.crun, machinery.reaper)
    try:
        for shape in Shape:
            machinery.prepared.parked.append(await park(machinery.crun, shape))
    except (CrunError, OSError) as error:
        log.error("nothing parked", error=str(error))


async def _run_one(crun: Crun, reaper: Reaper) -> bool:
    """Whether its cgroup is there afterwards, with the program for devices that all below it shall have."""
    directory = f"{RUN_DIR}/{NAME}"
    rootfs = f"{directory}/rootfs"
    try:
        _write_bundle(directory, rootfs)
        with reaper.adopting():
            ended = reaper.expect(await crun.create(NAME, directory, None, ""))
        try:
            await crun.start(NAME)
            await ended
        except BaseException:
            await crun.delete(NAME)
            raise
        crun.forget(NAME)
        check_attached()
    except (CrunError, KernelError, OSError) as error:
        log.error("not warmed up", error=str(error))
        return False
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)
    return True


def _write_bundle(directory: str, rootfs: str) -> None:
    os.makedirs(rootfs, mode=0o755)
    for link, target in _LINKS.items():
        os.symlink(target, f"{rootfs}/{link}")
    with open(f"{directory}/config.json", "xb") as file:
        file.write(specification(rootfs))
