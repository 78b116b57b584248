"""One virtual machine of one shim, from QEMU's start to its end, with vminitd answering.

The machine stands paused (prelaunch.py); here it gets its disks and memory, and the first
call to its guest, which makes it itself (name, time, randomness, size). Whether it boots or
starts as the clone of a template makes no difference.
It is called a sandbox because a Kubernetes pod's containers share one.
"""

import asyncio
import contextlib
import os
import socket
import time
from asyncio import Future
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api import guest_pb2
from api.link import CALLS_BEFORE, GUEST_CONSOLE
from shim import deadlines, untrusted
from shim.both import both
from shim.cpuset import format_list
from shim.errors import GuestError, MachineError, StateError
from shim.guest import Guest, connect
from shim.inspection import Inspection, Interface
from shim.log import Logger
from shim.network.connection import Connection
from shim.prelaunch import GDB_SOCKET, Launched
from shim.relay import Streams
from shim.rootfs.plan import Disk
from shim.sizing import Size, contained_mib, plugged_mib
from shim.vm import affinity, devices
from shim.vm.devices import Nic
from shim.vm.failure import CONSOLE_LINES
from shim.vm.hotplug import Seat
from shim.vm.states import Cause, Exit
from shim.vm.vm import VirtualMachine
from shim.volumes.share import Share

_ENTROPY_BYTES: Final = 64


def machine_name(key: str) -> str:
    """The hostname of a machine, which is that of a container that asks for none."""
    return f"qemubox-{key}"


@dataclass(frozen=True, slots=True)
class Furniture:
    """What a paused machine is given for its container."""

    size: Size
    disks: tuple[Disk, ...]
    network: Connection
    share: Share

    async def put_into(self, vm: VirtualMachine) -> dict[str, Seat]:
        """Give it all of that; where each disk is, by its serial number. Raises what shim/vm/ and `share` raise."""
        if self.size.host_cpus:
            affinity.bind(vm.pid, self.size.host_cpus)
        seats = {disk.serial: await vm.add_disk(_device(disk)) for disk in self.disks}
        for nic in self.network.nics:
            await vm.add_nic(nic)
        if self.share.wanted:
            await vm.add_share(await self.share.serve())
        await vm.resize_memory(_plugged_mib(self.size.memory_mib))
        return seats


class Sandbox:
    """A running machine whose vminitd has answered. Made by `launch`; ended by `stop`."""

    def __init__(self, launched: Launched, guest: Guest, seats: Mapping[str, Seat], size: Size, log: Logger) -> None:
        self.guest = guest
        # What the guest reached and when, in milliseconds since its kernel started.
        self.milestones: dict[str, float] = {}
        self._launched = launched
        self._vm = launched.vm
        self._seats = seats
        self._size = size
        self._log = log
        self._minder: asyncio.Task[None] | None = None

    @property
    def is_clone(self) -> bool:
        """Whether it is the clone of a template."""
        return bool(self._launched.template)

    @classmethod
    async def launch(
        cls,
        launched: Launched,
        *,
        key: str,
        furniture: "Furniture",
        boot_timeout_s: float,
        log_level: str,
        along: Callable[["Sandbox"], Coroutine[object, object, None]],
        log: Logger,
    ) -> "Sandbox":
        """Give a paused machine what the container needs, run it, and wait until vminitd has answered.

        `along` is done as soon as the machine runs: what it asks the guest goes there together
        with the first call, and is answered after it. Raises what shim/vm/ raises, and what
        `along` does; the machine is ended then.
        """
        vm, timeline, network = launched.vm, launched.vm.timeline, furniture.network
        try:
            timeline.mark("furnishing")
            seats = await furniture.put_into(vm)
            timeline.mark("furnished")
            await vm.run()
            guest = Guest(connect(await vm.control(boot_timeout_s), calls_before=CALLS_BEFORE), vm.exited)
            vm.exited.add_done_callback(lambda end: _tell_of_a_panic(end.result(), vm, log))
            sandbox = cls(launched, guest, seats, furniture.size, log)
            request = sandbox._request(key, log_level)
            if network.nics:
                request.network.CopyFrom(network.message)
            await both(sandbox._configure(request, boot_timeout_s), along(sandbox), last_words_s=deadlines.LAST_WORDS_S)
        except BaseException:
            await vm.kill(deadlines.QEMU_KILL_S)
            raise
        sandbox._minder = asyncio.create_task(sandbox._mind(), name="mind the control connection")
        return sandbox

    @property
    def memory(self) -> str:
        """Where its memory has come from: a value of prelaunch.Memory."""
        return self._launched.memory

    def rootfs(self, planned: guest_pb2.Rootfs) -> guest_pb2.Rootfs:
        """A root file system as this machine's guest finds it: the disks where they are seated."""
        found = guest_pb2.Rootfs()
        found.CopyFrom(planned)
        for layer in (*found.lower, *((found.writable,) if found.HasField("writable") else ())):
            self.seat(layer)
        return found

    def seat(self, layer: guest_pb2.Layer) -> None:
        """Say where the guest finds the disk that `layer` is on."""
        layer.serial, layer.disk_bytes = self._seats[layer.serial]

    def seated(self, disks: Sequence[Disk]) -> dict[str, Disk]:
        """The disks by the serial numbers that this machine's guest finds them by."""
        return {self._seats[disk.serial].serial: disk for disk in disks}

    @property
    def memory_room_mib(self) -> int:
        """What the container's memory can grow to, on top of the machine's base."""
        return contained_mib(self._vm.machine.room_mib)

    def place(self, host_cpus: frozenset[int]) -> None:
        """Have the machine run on these CPUs of the host; none named: on all that we may use. Raises HostError."""
        affinity.bind(self._vm.pid, host_cpus or os.sched_getaffinity(0))

    async def resize_memory(self, memory_mib: int) -> None:
        """Have the guest take memory, or give it back, until the container has so much. Raises GuestError."""
        requested_mib = _plugged_mib(memory_mib)
        has_mib = await self._vm.settle_memory(
            requested_mib, stall_s=deadlines.MEMORY_STALL_S, limit_s=deadlines.MEMORY_RESIZE_S
        )
        if has_mib != requested_mib:
            self._log.info("the guest's kernel keeps memory for now", requested_mib=requested_mib, has_mib=has_mib)

    @contextlib.asynccontextmanager
    async def streams(self, streams: Streams, request: guest_pb2.Stdio) -> AsyncIterator[None]:
        """Name a token in `request` for each stream; at the end of the block, all that the guest dialled are carried.

        The block is the call that tells the guest of `request`.
        """
        expected: dict[str, Future[socket.socket]] = {}
        tokens: dict[str, bytes] = {}
        try:
            for name in streams.names:
                tokens[name], expected[name] = await self._vm.new_stream()
                setattr(request, name, tokens[name])
            yield
            for name in tuple(expected):
                connection = await self.guest.call(expected[name], deadline_s=deadlines.GUEST_CALL_S)
                streams.connect(name, connection)
                del expected[name]
        finally:
            for name, dialled in expected.items():
                if not dialled.cancel() and not dialled.cancelled() and dialled.exception() is None:
                    dialled.result().close()
                with contextlib.suppress(MachineError, StateError):  # it is gone, and they with it
                    await self._vm.withdraw(tokens[name])

    async def rewrite(self, container_id: str, files: Sequence[guest_pb2.File]) -> None:
        """Write other content into files that Create was given. Raises GuestError or MachineError."""
        request = guest_pb2.RewriteRequest(container_id=container_id, files=files)
        await self.guest.call(self.guest.containers.Rewrite(request), deadline_s=deadlines.GUEST_CALL_S)

    async def plug(self, nic: Nic) -> None:
        """Give the running machine one more network interface. Raises MachineError, ResourceError."""
        await self._vm.add_nic(nic)

    async def unplug(self, nic: Nic) -> None:
        """Take one from it. Raises MachineError where the guest does not let go of it."""
        await self._vm.remove_device(nic.name, deadlines.GUEST_UNPLUG_S)

    async def qmp(self, command: str, arguments: Mapping[str, object]) -> object:
        """One command of QEMU's, and its answer. Raises MachineError with QEMU's words, StateError."""
        return await self._vm.qmp(command, arguments)

    async def forward(self, address: str, port: int, streams: Streams) -> None:
        """Connect to a TCP port of the guest: from here on `streams`, a stdin and a stdout, are carried to and from it.

        Raises GuestError, with Unavailable where nothing listens there, MachineError, ResourceError.
        """
        request = guest_pb2.ForwardRequest(address=address, port=port)
        async with self.streams(streams, request.streams):
            await self.guest.call(self.guest.network.Forward(request), deadline_s=deadlines.GUEST_FORWARD_S)

    def hear(self, reply: guest_pb2.ConfigureResponse | guest_pb2.StartResponse) -> None:
        """Take over what an answer that has just come says of when the guest reached what."""
        milestones = untrusted.milestones(reply.milestones)
        self.milestones = {name: round(at_ns / 1e6, 1) for name, at_ns in milestones}
        self._vm.timeline.hear(milestones, reply.boottime_ns)

    def inspect(
        self, namespace: str, container_id: str, size: Size, netns: str, interfaces: Mapping[str, Interface]
    ) -> Inspection:
        """What there is to be shown of this machine, which has that size and network (`qemubox inspect`)."""
        launched, machine = self._launched, self._launched.hypervisor.machine
        gdb = str(self._vm.console.path.with_name(GDB_SOCKET))
        return Inspection(
            namespace=namespace,
            id=container_id,
            shim_pid=os.getpid(),
            qemu_pid=self._vm.pid,
            template=launched.template,
            memory=launched.memory,
            memory_shared=machine.shared_memory,
            link=launched.hypervisor.link,
            accelerator=machine.accel,
            vcpus=size.cpus,
            host_cpus=format_list(size.host_cpus),
            base_memory_mib=machine.base_memory_mib,
            memory_mib=_plugged_mib(size.memory_mib),
            disks={name: seat.serial for name, seat in self._seats.items()},
            netns=netns,
            interfaces=interfaces,
            console=str(self._vm.console.path),
            guest_console=GUEST_CONSOLE in machine.kernel_args.split(),
            gdb=gdb if os.path.exists(gdb) else "",
        )

    async def kill(self, reason: str) -> None:
        """End a machine that does not do what it must. What it was serving ends as if it had died by itself."""
        self._log.warning("the virtual machine is ended", reason=reason)
        await self._vm.kill(deadlines.QEMU_KILL_S)

    async def give_up(self, reason: str) -> None:
        """`kill`, where there is nobody to tell that QEMU does not end."""
        try:
            await self.kill(reason)
        except MachineError as error:
            self._log.error("the virtual machine does not end", error=str(error))

    async def stop(self, *, flush: bool) -> None:
        """End the machine. With `flush`, file systems that outlive it are synced and unmounted first."""
        if self._minder is not None:
            self._minder.cancel()
        if flush and self.guest.alive:
            request = guest_pb2.ShutdownRequest(grace_ms=0)
            try:
                await self.guest.call(self.guest.machine.Shutdown(request), deadline_s=deadlines.GUEST_SHUTDOWN_S)
            except (GuestError, MachineError) as error:
                self._log.warning("the guest was not shut down in good order", error=str(error))
        await self.guest.close()
        await self._vm.kill(deadlines.QEMU_KILL_S)

    async def _mind(self) -> None:
        """End the machine once its vminitd cannot be reached: its containers are told to have ended, and must have."""
        await self.guest.unreachable()
        await self.give_up("vminitd has closed its connection")

    def _request(self, key: str, log_level: str) -> guest_pb2.ConfigureRequest:
        return guest_pb2.ConfigureRequest(
            hostname=machine_name(key),
            entropy=os.urandom(_ENTROPY_BYTES),
            wall_clock_ns=time.time_ns(),
            vcpus=self._size.cpus,
            # All of it: a container whose memory is not there yet would not have what its limit says. It is made
            # meanwhile, and started once it is there.
            memory_mib=self._launched.hypervisor.machine.base_memory_mib + _plugged_mib(self._size.memory_mib),
            log_level=log_level,
        )

    async def _configure(self, request: guest_pb2.ConfigureRequest, boot_timeout_s: float) -> None:
        """The first call, by which the machine is itself."""
        call = self.guest.call(self.guest.machine.Configure(request), deadline_s=None)
        reply = await self._vm.hear(call, boot_timeout_s)
        self.hear(reply)
        self._log.debug(
            "guest configured",
            kernel=untrusted.plain(reply.kernel_release, untrusted.NAME_LIMIT),
            vminitd=untrusted.plain(reply.vminitd_version, untrusted.NAME_LIMIT),
            nonce=f"{reply.nonce:016x}",
        )


def _device(disk: Disk) -> devices.Disk | devices.JoinedDisk:
    """A disk as QEMU is given it. The files are open here; /proc names them whatever became of their paths."""
    paths = tuple(Path(f"/proc/self/fd/{extent.fd}") for extent in disk.extents)
    if len(paths) == 1:
        return devices.Disk(disk.serial, paths[0], read_only=disk.read_only)
    return devices.JoinedDisk(disk.serial, paths)


def _plugged_mib(memory_mib: int) -> int:
    """What the memory device gives for a container's `memory_mib`: rounded up to what it can."""
    return -(-plugged_mib(memory_mib) // devices.MEMORY_STEP_MIB) * devices.MEMORY_STEP_MIB


def _tell_of_a_panic(end: Exit, vm: VirtualMachine, log: Logger) -> None:
    """Into the log with the guest's last words, for its console's file may be gone before anybody can look."""
    if end.cause is Cause.PANIC:
        log.error("the guest's kernel panicked", console=" | ".join(vm.console.tail(CONSOLE_LINES)))
