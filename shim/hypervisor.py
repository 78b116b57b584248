"""From the configuration to a machine: QEMU, accelerator, vsock, and the user it all runs as."""

import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shim.config import Config
from shim.errors import ConfigError, MissingPartError
from shim.journal import Journal
from shim.log import Logger
from shim.sizing import Bounds
from shim.vm.accel import resolve
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.vsock import KERNEL_DEVICE, VsockBackend
from shim.vm.vsock_kernel import KernelVsock
from shim.vm.vsock_user import UserVsock

# Disks, vsock, memory and interfaces of one container fit; a pod's containers bring theirs.
SLOTS: Final = 16


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """All that is needed to launch one machine."""

    machine: Machine
    vsock: VsockBackend
    credentials: Credentials


async def choose(config: Config, directory: Path, bounds: Bounds, journal: Journal, log: Logger) -> Hypervisor:
    """What the configuration and the host make possible. `directory` is the container's, for the vsock daemon.

    Raises ConfigError or MissingPartError, each with what to do.
    """
    user = _user(config)
    qemu = program(config.vm.qemu, key="vm.qemu", package="qemu-system-x86")
    accel = await resolve_accel(config, qemu, user, log)
    vsock: VsockBackend
    if config.vsock.mode == "kernel" or (config.vsock.mode == "auto" and os.path.exists(KERNEL_DEVICE)):
        vsock = KernelVsock()
    else:
        daemon = program(config.vsock.daemon, key="vsock.daemon", package="vhost-device-vsock")
        vsock = UserVsock(daemon=daemon, directory=directory / "vsock", credentials=user, journal=journal)
    machine = Machine(
        qemu=qemu,
        kernel=Path(config.vm.kernel),
        image=Path(config.vm.image),
        accel=accel,
        max_vcpus=bounds.max_cpus,
        max_memory_mib=config.vm.base_memory_mib + bounds.max_memory_mib,
        base_memory_mib=config.vm.base_memory_mib,
        slots=SLOTS,
        shared_memory=vsock.shared_memory,
        kernel_args=config.vm.kernel_args,
    )
    return Hypervisor(machine, vsock, user)


def program(name: str, *, key: str, package: str) -> Path:
    """The path of a program that the configuration names by path or by name.

    Raises MissingPartError naming the configuration's key and the package that has it.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingPartError(f"{key} = {name!r}: no such program", hint=f"apt-get install {package}")
    return Path(found)


def _user(config: Config) -> Credentials:
    try:
        user = pwd.getpwnam(config.runtime.user)
    except KeyError:
        raise ConfigError(
            f"runtime.user = {config.runtime.user!r}: no such user",
            hint=f"useradd --system --no-create-home --shell /usr/sbin/nologin {config.runtime.user}",
        ) from None
    return Credentials(uid=user.pw_uid, gid=user.pw_gid)
