"""From the configuration to a machine: QEMU, accelerator, vsock, and the user it all runs as."""

import os
import pwd
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from api.link import GUEST_CONSOLE
from shim.config import Config
from shim.errors import ConfigError, MissingPartError
from shim.journal import Journal
from shim.log import Logger
from shim.sizing import Bounds, plugged_mib
from shim.vm import accel
from shim.vm.machine import Accel, Machine
from shim.vm.process import Credentials
from shim.vm.vsock import LinkMode, VsockBackend, choose_mode
from shim.vm.vsock_kernel import KernelVsock
from shim.vm.vsock_user import UserVsock

# Linux adds memory in blocks of this size (x86_64, below 64 GiB): a virtio-mem region that ends within one loses it.
_MEMORY_BLOCK_MIB: Final = 128

_FIRST_UID: Final = 1_879_048_192


def blocks_mib(size_mib: int) -> int:
    """`size_mib` rounded up to whole memory blocks of the guest's kernel."""
    return -(-size_mib // _MEMORY_BLOCK_MIB) * _MEMORY_BLOCK_MIB


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """All that is needed to launch one machine."""

    machine: Machine
    # Each call makes the way to one machine's guest; None where the machine has ports for that.
    new_vsock: Callable[[], VsockBackend] | None
    # Which way that is: a value of vsock.mode, never auto.
    link: LinkMode
    credentials: Credentials
    # Why it is this accelerator: one line.
    reason: str = ""


async def choose(config: Config, directory: Path, bounds: Bounds, journal: Journal, log: Logger) -> Hypervisor:
    """What the configuration and the host make possible. `directory` is the container's, for the vsock daemon.

    Raises ConfigError or MissingPartError, each with what to do.
    """
    user = credentials_of(config)
    qemu = program(config.vm.qemu, key="vm.qemu", package="qemu-system-x86")
    link = choose_mode(config.vsock.mode)
    new_vsock, shared_memory = _vsock(link, config, directory, user, journal)
    machine = Machine(
        qemu=qemu,
        kernel=Path(config.vm.kernel),
        image=Path(config.vm.image),
        accel=Accel.TCG,
        max_vcpus=bounds.max_cpus,
        max_memory_mib=config.vm.base_memory_mib + blocks_mib(plugged_mib(bounds.max_memory_mib)),
        base_memory_mib=config.vm.base_memory_mib,
        shared_memory=shared_memory,
        ports=new_vsock is None,
        tcg_cache_mib=config.vm.tcg_cache_mib,
        kernel_args=config.vm.kernel_args,
    )
    chosen = await accel.choose(
        config.vm.accel,
        machine,
        runtime_dir=Path(config.runtime.state_dir),
        credentials=user,
        journal=journal,
        timeout_s=config.vm.boot_timeout_s,
    )
    if chosen.accel is Accel.TCG:
        if not config.vm.allow_tcg:
            raise MissingPartError(
                f"no KVM, and vm.allow_tcg is false: {chosen.reason}", hint="enable virtualization on the host"
            )
        log.warning("running under TCG, which is slow and no security boundary", reason=chosen.reason)
    machine = replace(machine, accel=chosen.accel)
    if config.debug.guest_console:
        log.warning("debug.guest_console: there will be a prompt of root's on the guest's console")
        machine = machine.with_kernel_args(GUEST_CONSOLE)
    return Hypervisor(machine, new_vsock, link, user, chosen.reason)


def program(name: str, *, key: str, package: str) -> Path:
    """The path of a program that the configuration names by path or by name.

    Raises MissingPartError naming the configuration's key and the package that has it.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingPartError(f"{key} = {name!r}: no such program", hint=f"apt-get install {package}")
    return Path(found)


def _vsock(
    link: LinkMode, config: Config, directory: Path, user: Credentials, journal: Journal
) -> tuple[Callable[[], VsockBackend] | None, bool]:
    """What makes the way to the guest, and whether that wants shared memory."""
    if link is LinkMode.KERNEL:
        return KernelVsock, KernelVsock.shared_memory
    if link is LinkMode.SERIAL:
        return None, False
    daemon = program(config.vsock.daemon, key="vsock.daemon", package="vhost-device-vsock")

    def new() -> VsockBackend:
        return UserVsock(daemon=daemon, directory=directory / "vsock", credentials=user, journal=journal)

    return new, UserVsock.shared_memory


def credentials_of(config: Config) -> Credentials:
    """Whom our machine runs as, with the group that /dev/kvm needs. Raises ConfigError: the host has no such user."""
    try:
        user = pwd.getpwnam(config.runtime.user)
    except KeyError:
        raise ConfigError(
            f"runtime.user = {config.runtime.user!r}: no such user",
            hint=f"useradd --system --no-create-home --shell /usr/sbin/nologin {config.runtime.user}",
        ) from None
    uid = user.pw_uid if config.runtime.user_ids == "one" else own_uid(os.getpid())
    return Credentials(uid=uid, gid=user.pw_gid, groups=accel.kvm_groups())


def own_uid(pid: int) -> int:
    """A user id that no other machine of the host has: by the process that starts the machine and outlives it.

    QEMU's filter of system calls lets it trace and kill processes of its own user, so machines that have one user are
    kept apart by their guests' boundary alone. The ids begin where systemd's list of them says "unused" (its
    UIDS-GIDS document: 1879048192 to 2147483647); a pid is below 4194304 (proc(5), pid_max). Nothing on a disk is ever
    theirs, so an id may come again.
    """
    return _FIRST_UID + pid
