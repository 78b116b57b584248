"""One virtual machine of one shim, from QEMU's start to its end, with vminitd answering.

Puts together what shim/vm/ offers: which machine, which vsock, which devices; then the
first call to the guest, which makes the machine itself (name, time, randomness, size).
Whether the machine boots or starts as the clone of a template is all the difference there is.
It is called a sandbox because a Kubernetes pod's containers share one.
"""

import contextlib
import os
import secrets
import socket
import time
from asyncio import Future
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from api import guest_pb2
from shim import deadlines
from shim.errors import GuestError, MachineError
from shim.guest import Guest
from shim.hypervisor import Hypervisor, blocks_mib
from shim.journal import Journal
from shim.log import Logger
from shim.rootfs.plan import Disk
from shim.sizing import Size
from shim.task.stdio import ProcessStreams
from shim.template.store import Template
from shim.vm import devices
from shim.vm.timeline import Timeline
from shim.vm.vm import VirtualMachine
from ttrpc import Client

_ENTROPY_BYTES: Final = 64
_TOKEN_BYTES: Final = 16


class Sandbox:
    """A running machine whose vminitd has answered. Made by `launch`; ended by `stop`."""

    def __init__(self, vm: VirtualMachine, guest: Guest, log: Logger) -> None:
        self.guest = guest
        # What the guest reached and when, in milliseconds since its kernel started.
        self.milestones: dict[str, float] = {}
        # Whether it is the clone of a template.
        self.is_clone = False
        self._vm = vm
        self._log = log

    @classmethod
    async def launch(
        cls,
        hypervisor: Hypervisor,
        template: Template | None,
        *,
        key: str,
        directory: Path,
        size: Size,
        disks: Sequence[Disk],
        boot_timeout_s: float,
        console_kib: int,
        log_level: str,
        journal: Journal,
        timeline: Timeline,
        log: Logger,
    ) -> "Sandbox":
        """Start the machine, from the template if there is one, and wait until vminitd has answered.

        A clone that fails before it has answered is no reason to fail: the machine then
        boots, once. The template is let go of in any case. Raises what shim/vm/ raises;
        nothing of the machine is left then.
        """

        async def start(state_fd: int | None) -> "Sandbox":
            return await cls._start(
                hypervisor,
                state_fd,
                key=key,
                directory=directory,
                size=size,
                disks=disks,
                boot_timeout_s=boot_timeout_s,
                console_kib=console_kib,
                log_level=log_level,
                journal=journal,
                timeline=timeline,
                log=log,
            )

        if template is not None:
            try:
                return await start(template.fd)
            except MachineError as error:
                log.warning("cold boot: the template's clone failed", template=template.name, error=str(error))
                timeline.mark("clone failed")
            finally:
                template.close()
        return await start(None)

    @classmethod
    async def _start(
        cls,
        hypervisor: Hypervisor,
        state_fd: int | None,
        *,
        key: str,
        directory: Path,
        size: Size,
        disks: Sequence[Disk],
        boot_timeout_s: float,
        console_kib: int,
        log_level: str,
        journal: Journal,
        timeline: Timeline,
        log: Logger,
    ) -> "Sandbox":
        """Start the machine paused, plug in what the container needs, run it, and wait for vminitd."""
        vm = await VirtualMachine.launch(
            hypervisor.machine,
            name=f"qemubox-{key}",
            console_path=directory / "console",
            console_kib=console_kib,
            credentials=hypervisor.credentials,
            journal=journal,
            timeline=timeline,
            command_timeout_s=deadlines.QEMU_COMMAND_S,
            restored=state_fd is not None,
        )
        try:
            if state_fd is not None:
                await vm.restore(state_fd, deadlines.TEMPLATE_LOAD_S)
            await vm.add_vsock(hypervisor.new_vsock(), deadlines.VSOCK_READY_S)
            for disk in disks:
                await vm.add_disk(_device(disk))
            await vm.add_memory(_memory(size))
            timeline.mark("devices")
            await vm.run()
            guest = Guest(Client(await vm.control(boot_timeout_s)), vm.exited)
            sandbox = cls(vm, guest, log)
            sandbox.is_clone = state_fd is not None
            await sandbox._configure(key, size, hypervisor.machine.base_memory_mib, log_level, timeline)
        except BaseException:
            await vm.kill(deadlines.QEMU_KILL_S)
            raise
        return sandbox

    @contextlib.asynccontextmanager
    async def streams(self, streams: ProcessStreams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        """Name a token in `request` for each stream; at the end of the block, all that the guest dialled are carried.

        The block is the call that tells the guest of `request`.
        """
        expected: dict[str, Future[socket.socket]] = {}
        try:
            for name in streams.names:
                token = secrets.token_bytes(_TOKEN_BYTES)
                expected[name] = self._vm.expect(token)
                setattr(request, name, token)
            yield
            for name in tuple(expected):
                connection = await self.guest.call(expected[name], deadline_s=deadlines.GUEST_CALL_S)
                streams.connect(name, connection)
                del expected[name]
        finally:
            for dialled in expected.values():
                if not dialled.cancel() and not dialled.cancelled() and dialled.exception() is None:
                    dialled.result().close()

    async def kill(self, reason: str) -> None:
        """End a machine that does not do what it must. What it was serving ends as if it had died by itself."""
        self._log.warning("the virtual machine is ended", reason=reason)
        await self._vm.kill(deadlines.QEMU_KILL_S)

    async def stop(self, *, flush: bool) -> None:
        """End the machine. With `flush`, file systems that outlive it are synced and unmounted first."""
        if flush and self.guest.alive:
            request = guest_pb2.ShutdownRequest(grace_ms=0)
            try:
                await self.guest.call(self.guest.machine.Shutdown(request), deadline_s=deadlines.GUEST_SHUTDOWN_S)
            except (GuestError, MachineError) as error:
                self._log.warning("the guest was not shut down in good order", error=str(error))
        await self.guest.close()
        await self._vm.kill(deadlines.QEMU_KILL_S)

    async def _configure(self, key: str, size: Size, base_memory_mib: int, log_level: str, timeline: Timeline) -> None:
        request = guest_pb2.ConfigureRequest(
            hostname=f"qemubox-{key}",
            entropy=os.urandom(_ENTROPY_BYTES),
            wall_clock_ns=time.time_ns(),
            vcpus=size.cpus,
            # All of it: a container whose memory is not there yet would not have what its limit says.
            memory_mib=base_memory_mib + _memory(size).requested_mib,
            log_level=log_level,
        )
        reply = await self.guest.call(self.guest.machine.Configure(request), deadline_s=deadlines.GUEST_CONFIGURE_S)
        timeline.mark("configured")
        self.milestones = {item.name: round(item.boottime_ns / 1e6, 1) for item in reply.milestones}
        self._log.debug("guest configured", kernel=reply.kernel_release, vminitd=reply.vminitd_version)


def _device(disk: Disk) -> devices.Disk | devices.JoinedDisk:
    """A disk as QEMU is given it. The files are open here; /proc names them whatever became of their paths."""
    paths = tuple(Path(f"/proc/self/fd/{extent.fd}") for extent in disk.extents)
    if len(paths) == 1:
        return devices.Disk(disk.serial, paths[0], read_only=disk.read_only)
    return devices.JoinedDisk(disk.serial, paths)


def _memory(size: Size) -> devices.Memory:
    step = devices.MEMORY_STEP_MIB
    return devices.Memory(
        max_mib=blocks_mib(size.memory_mib),
        requested_mib=-(-size.memory_mib // step) * step,
    )
