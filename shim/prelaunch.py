"""QEMU under way before its container is known.

Which machine a container gets, and which template that is a clone of, depends on the
configuration alone, with what annotations change of it (shim/annotations.py). So the daemon
starts QEMU and restores the template as soon as it runs, while containerd still finds its
socket and calls Create; the paused machine then only has to be given what is the container's
own. A Create that never comes costs a process that does nothing, until the shim ends.
"""

import asyncio
import contextlib
import enum
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from shim import deadlines
from shim.config import Config
from shim.errors import HostError, MachineError, TemplateError
from shim.hypervisor import Hypervisor, choose
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.sizing import Bounds
from shim.template import held, memory
from shim.template.choice import choose as choose_template
from shim.template.store import Template
from shim.vm import offered
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine

_NO_MEMORY: Final = -1
# In the machine's directory, where the configuration wants it.
GDB_SOCKET: Final = "gdb"
# Plugs into a machine what has got ready meanwhile.
Plug = Callable[[VirtualMachine], Awaitable[None]]


class Memory(enum.StrEnum):
    """Where a machine's memory has come from."""

    # The template's own, until it is written to.
    PRIVATE = "private"
    # A copy of the template's.
    COPIED = "copied"
    # It was empty.
    BOOTED = "booted"


@dataclass(frozen=True, slots=True)
class Launched:
    """A machine that stands paused, with nothing of a container yet. `template` is its template's name, if any."""

    vm: VirtualMachine
    hypervisor: Hypervisor
    template: str
    memory: Memory


class Prelaunch:
    """Starts the machines of one shim. `directory` is the shim's own under the runtime directory."""

    def __init__(
        self, config: Config, identity: Identity, directory: Path, *, bounds: Bounds, journal: Journal, log: Logger
    ) -> None:
        self._config = config
        self._identity = identity
        self._directory = directory
        self._bounds = bounds
        self._journal = journal
        self._log = log
        self._launching: asyncio.Task[Launched] | None = None
        # Of the machine that `take` answers next.
        self.timeline = Timeline()

    def begin(self, *, shared_memory: bool = False) -> None:
        """Start the first machine now; with memory that others can map if somebody will want to."""
        self._launching = asyncio.create_task(
            self._launch(template=True, shared_memory=shared_memory), name="prelaunch"
        )
        self._launching.add_done_callback(_forget)

    async def take(self, *, shared_memory: bool = False) -> Launched:
        """A machine for a container, which must be ended by the caller. Raises what is wrong with it.

        That may be anything: of the configuration, of the host's parts, of QEMU. One that was begun without
        `shared_memory` is ended where that is wanted; one that has it for nothing will do.
        """
        launching, self._launching = self._launching, None
        if launching is None:
            return await self._launch(template=True, shared_memory=shared_memory)
        try:
            launched = await asyncio.shield(launching)
        except asyncio.CancelledError:
            self._launching = launching  # for `close`
            raise
        if launched.hypervisor.machine.shared_memory or not shared_memory:
            return launched
        self._log.info("another machine is started: no volumes were expected")
        self.timeline.mark("without shared memory")
        await launched.vm.kill(deadlines.QEMU_KILL_S)
        return await self._launch(template=True, shared_memory=True)

    async def take_cold(self, *, shared_memory: bool = False) -> Launched:
        """A machine that boots, whatever templates there are."""
        return await self._launch(template=False, shared_memory=shared_memory)

    async def close(self) -> None:
        """End a machine that nobody has taken."""
        launching, self._launching = self._launching, None
        if launching is None:
            return
        launching.cancel()
        await asyncio.wait([launching])
        if not launching.cancelled() and launching.exception() is None:
            await launching.result().vm.kill(deadlines.QEMU_KILL_S)

    async def _launch(self, *, template: bool, shared_memory: bool) -> Launched:
        hypervisor = await choose(self._config, self._directory, self._bounds, self._journal, self._log)
        if shared_memory:
            hypervisor = replace(hypervisor, machine=replace(hypervisor.machine, shared_memory=True))
        self.timeline.mark("chosen")
        found = (
            choose_template(self._config, hypervisor.machine, self._identity.namespace, self._log) if template else None
        )
        if found is not None:
            try:
                return await self._clone(hypervisor, found)
            except (MachineError, TemplateError) as error:
                self._log.warning("cold boot: the template's clone failed", template=found.name, error=str(error))
                self.timeline.mark("clone failed")
            finally:
                found.close()
        async with _vsock_beside(hypervisor) as plug:
            vm = await self._start(hypervisor, _NO_MEMORY, restored=False)
            await _or_kill(vm, plug(vm))
        return Launched(vm, hypervisor, "", Memory.BOOTED)

    async def _clone(self, hypervisor: Hypervisor, template: Template) -> Launched:
        """A machine that has become what the template was. The template stays the caller's."""
        size = template.metadata.memory_size
        kept = None if hypervisor.machine.shared_memory else held.find(template)
        async with _vsock_beside(hypervisor) as plug:
            memory_fd = await asyncio.to_thread(memory.copy, template.fd, size) if kept is None else kept
            try:
                vm = await self._start(hypervisor, memory_fd, restored=True)
            finally:
                os.close(memory_fd)
            await _or_kill(vm, self._become(vm, template, plug))
        return Launched(vm, hypervisor, template.name, Memory.COPIED if kept is None else Memory.PRIVATE)

    async def _become(self, vm: VirtualMachine, template: Template, plug: Plug) -> None:
        await vm.restore(template.fd, template.metadata.memory_size, deadlines.TEMPLATE_LOAD_S)
        # Once more, now that all of it was read: nobody has written to it meanwhile.
        template.metadata.check_state(os.fstat(template.fd))
        await plug(vm)

    async def _start(self, hypervisor: Hypervisor, memory_fd: int, *, restored: bool) -> VirtualMachine:
        gdb = self._debugger()
        try:
            vm = await self._launch_qemu(hypervisor, memory_fd, -1 if gdb is None else gdb.fileno(), restored=restored)
        finally:
            if gdb is not None:
                gdb.close()
        try:
            vm.console.offer(self._directory / offered.FILE_NAME)
        except OSError as error:  # a path that is too long, a full tmpfs: no reason not to start a container
            self._log.warning("qemubox console will not find the guest", error=str(error))
        return vm

    def _debugger(self) -> socket.socket | None:
        """The socket where QEMU is to wait for one, if the host's owner wants that. Raises HostError."""
        if not self._config.debug.gdb:
            return None
        path = self._directory / GDB_SOCKET
        self._log.warning("debug.gdb: whoever connects stops the machine", socket=str(path))
        try:
            return offered.listening(path)
        except OSError as error:
            raise HostError(f"debug.gdb: cannot listen at {path}: {error.strerror or error}") from error

    async def _launch_qemu(
        self, hypervisor: Hypervisor, memory_fd: int, gdb_fd: int, *, restored: bool
    ) -> VirtualMachine:
        return await VirtualMachine.launch(
            hypervisor.machine,
            name=f"qemubox-{self._identity.key}",
            console_path=self._directory / "console",
            console_kib=self._config.vm.console_kib,
            credentials=hypervisor.credentials,
            journal=self._journal,
            timeline=self.timeline,
            command_timeout_s=deadlines.QEMU_COMMAND_S,
            memory_fd=memory_fd,
            gdb_fd=gdb_fd,
            restored=restored,
        )


@contextlib.asynccontextmanager
async def _vsock_beside(hypervisor: Hypervisor) -> AsyncIterator[Plug]:
    """Have vsock get ready, which may be a daemon's start, while QEMU does: what this gives plugs it in then.

    A backend that was not plugged in is closed. Nothing of the kind where the machine has ports.
    """
    backend = None if hypervisor.new_vsock is None else hypervisor.new_vsock()
    if backend is None:
        yield _nothing
        return
    preparing = asyncio.create_task(backend.prepare(deadlines.VSOCK_READY_S), name="vsock")
    owned = True

    async def plug(vm: VirtualMachine) -> None:
        nonlocal owned
        owned = False
        await vm.add_vsock(backend, preparing)

    try:
        yield plug
    finally:
        if owned:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            await backend.close(deadlines.QEMU_KILL_S)


async def _nothing(_vm: VirtualMachine) -> None:
    return


async def _or_kill(vm: VirtualMachine, work: Awaitable[None]) -> None:
    """Do something to a machine that nobody has yet; it is ended if that fails."""
    try:
        await work
    except BaseException:
        await vm.kill(deadlines.QEMU_KILL_S)
        raise


def _forget(launching: "asyncio.Task[Launched]") -> None:
    """An error is told by Create; where there is none, by nobody."""
    if not launching.cancelled():
        launching.exception()
