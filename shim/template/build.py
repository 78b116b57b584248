"""Makes a template: boots the machine with no device of any container, freezes it, saves it.

The guest is told to warm up and says when it only waits (api/link.py), or, where it is to have
vsock, says so on its console: there is no vsock yet through which it could tell, and that is
the point: what is frozen has no connection, no CID, no name and no container's disk.
"""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from api.template import READY
from shim import deadlines
from shim.guest import Guest, connect
from shim.journal import Journal
from shim.template import memory
from shim.template.memory import MIB
from shim.template.metadata import Metadata
from shim.template.store import Made, Store, name_of
from shim.vm.machine import Machine
from shim.vm.process import Credentials
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from ttrpc import Client

_CONSOLE_KIB: Final = 64


async def build(
    store: Store, machine: Machine, *, namespace: str, credentials: Credentials, boot_timeout_s: float, again: bool
) -> Metadata:
    """Make the template of `machine`, or answer the one that is there, unless it shall be made `again`.

    Raises BootError when the guest does not get to where it waits, HostError for the
    disk, MachineError with QEMU's reason; nothing of it is left then.
    """
    name = name_of(machine.fingerprint(), namespace)

    async def make(directory: Path, state_fd: int) -> Made:
        memory_size = machine.base_memory_mib * MIB
        memory_fd = memory.empty(memory_size)
        try:
            version = await _boot_and_save(
                replace(machine, shared_memory=True), directory, memory_fd, state_fd, credentials, boot_timeout_s
            )
            await asyncio.to_thread(memory.take_down, memory_fd, memory_size, state_fd)
        finally:
            os.close(memory_fd)
        return Made(version, memory_size)

    return await store.build(name, make, deadlines.TEMPLATE_LOCK_S, again=again)


async def _boot_and_save(
    machine: Machine, directory: Path, memory_fd: int, state_fd: int, credentials: Credentials, boot_timeout_s: float
) -> str:
    """Boot, let it warm up, freeze it, and write what QEMU knows of it behind its memory; answers QEMU's version.

    When this returns QEMU is gone: nobody has the memory or the state open for writing any more.
    """
    async with booted(machine, directory, credentials, boot_timeout_s, memory_fd=memory_fd) as vm:
        await vm.pause()
        return await vm.save(state_fd, machine.base_memory_mib * MIB, deadlines.TEMPLATE_SAVE_S)


@contextlib.asynccontextmanager
async def booted(
    machine: Machine, directory: Path, credentials: Credentials, boot_timeout_s: float, *, memory_fd: int = -1
) -> AsyncIterator[VirtualMachine]:
    """A machine that has booted to where vminitd waits, with no device of any container; gone at the end.

    `directory` has its console, and the journal of what is made. Raises BootError, MachineError, MissingPartError.
    """
    vm = await VirtualMachine.launch(
        machine,
        # Not the template's name: another installation on this host may be making the same one, and whoever
        # plays a journal kills what it names.
        name=f"qemubox-template-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:24]}",
        console_path=directory / "console",
        console_kib=_CONSOLE_KIB,
        credentials=credentials,
        journal=Journal(directory),
        timeline=Timeline(),
        command_timeout_s=deadlines.QEMU_COMMAND_S,
        memory_fd=memory_fd,
    )
    client: Client | None = None
    try:
        await vm.run()
        if machine.ports:
            # The connection stays up until QEMU is gone: a guest whose host has hung up powers off.
            client = connect(await vm.control(boot_timeout_s))
            await vm.hear(Guest(client, vm.exited).warm_up(), boot_timeout_s)
        else:
            await vm.printed(READY, boot_timeout_s)
        yield vm
    finally:
        await vm.kill(deadlines.QEMU_KILL_S)
        if client is not None:
            await client.close()
