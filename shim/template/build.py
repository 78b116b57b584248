"""Makes a template: boots the machine with no device of any container, freezes it, saves it.

The guest says on its console when it has warmed up and only waits. There is no vsock yet
through which it could tell, and that is the point: what is frozen has no connection, no
CID, no name and no container's disk.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from api.template import READY
from shim import deadlines
from shim.journal import Journal
from shim.template.metadata import Metadata
from shim.template.store import Store, name_of
from shim.vm.machine import Machine
from shim.vm.process import Credentials
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine

_CONSOLE_KIB: Final = 64


async def build(
    store: Store, machine: Machine, *, namespace: str, credentials: Credentials, boot_timeout_s: float, again: bool
) -> Metadata:
    """Make the template of `machine`, or answer the one that is there, unless it shall be made `again`.

    Raises BootError when the guest does not get to where it waits, HostError for the
    disk, MachineError with QEMU's reason; nothing of it is left then.
    """
    name = name_of(machine.fingerprint(), namespace)

    async def make(directory: Path, state_fd: int) -> str:
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
        )
        try:
            await vm.run()
            await vm.printed(READY, boot_timeout_s)
            await vm.pause()
            return await vm.save(state_fd, deadlines.TEMPLATE_SAVE_S)
        finally:
            # Gone before the state is hashed: nobody has it open for writing any more.
            await vm.kill(deadlines.QEMU_KILL_S)

    return await store.build(name, make, deadlines.TEMPLATE_LOCK_S, again=again)
