"""One virtual machine from start to end.

    vm = await VirtualMachine.launch(machine, ...)    QEMU runs, the guest is paused
    await vm.restore(...)                             if it is a template's clone
    await vm.add_vsock(backend, ...)                  devices, in any order; vsock unless the machine has ports
    await vm.add_disk(...); await vm.add_nic(...); await vm.resize_memory(...)
    await vm.run()                                    the guest's first instruction, or a clone's next
    control = await vm.control(...)                   the way to vminitd
    token, stream = await vm.new_stream()             and for each stream, once the guest was told of its token
    await vm.kill(...)                                or the guest powers off

However it ends, `exited` says why, and everything that waits for the guest here waits
for that too: no call outlives the machine. QEMU is started before the modules that take
long to import, which then happens while it starts.
"""

import asyncio
import socket
from collections.abc import Awaitable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from shim.errors import BootError, MachineError, StateError
from shim.journal import Journal
from shim.vm import devices
from shim.vm.devices import Disk, JoinedDisk, Nic
from shim.vm.failure import failure
from shim.vm.link import Link
from shim.vm.machine import Machine
from shim.vm.process import Credentials
from shim.vm.qemu import Qemu, start
from shim.vm.states import Cause, Exit, RunState, classify, transition
from shim.vm.timeline import RESTORED, Timeline
from shim.vm.vsock import VsockBackend, VsockDevice

if TYPE_CHECKING:
    from shim.vm.hotplug import Hotplug, Seat
    from shim.vm.qmp import Event, Qmp
    from shim.volumes.daemon import Daemon

_T = TypeVar("_T")

# How long QEMU's last events, and the end of a machine whose connection broke, are waited for.
LAST_WORDS_S: Final = 2.0


class VirtualMachine:
    """A running QEMU. Made by `launch`; belongs to the loop that launched it."""

    def __init__(self, machine: Machine, qemu: Qemu, timeline: Timeline) -> None:
        self.machine = machine
        self.console = qemu.console
        self.timeline = timeline
        # Done when QEMU is gone and everything of the machine is released. Never fails.
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._process = qemu.process
        self._state = RunState.STARTING
        self._qmp: Qmp | None = None
        self._hotplug: Hotplug | None = None
        self._link = Link(qemu.ports)
        self._killed: Cause | None = None
        self._kill_detail = ""
        self._panicked = False
        self._shutdown = ""
        self._ending = asyncio.create_task(self._end(), name="vm-end")
        self._judging: asyncio.Task[None] | None = None
        self._pausing = False
        self._booted = False

    @classmethod
    async def launch(
        cls,
        machine: Machine,
        *,
        name: str,
        console_path: Path,
        console_kib: int,
        credentials: Credentials,
        journal: Journal,
        timeline: Timeline,
        command_timeout_s: float,
        memory_fd: int = -1,
        gdb_fd: int = -1,
        restored: bool = False,
    ) -> "VirtualMachine":
        """Start QEMU with the guest paused before its first instruction; if `restored`, empty: `restore` comes next.

        `memory_fd` is a file that is to be the base of its memory, and stays the caller's, as the listening socket
        `gdb_fd` does, at which QEMU then waits for a debugger.
        `name` stands in QEMU's command line and nowhere else on the host (the journal's
        marker): "qemubox-<key>". `command_timeout_s` is the deadline of QEMU's greeting and
        of each of its commands. Raises MissingPartError without QEMU, kernel or image,
        BootError with QEMU's words when it ends or does not answer; nothing of it is left
        then.
        """
        machine.check_parts()
        timeline.mark("launch")
        qemu = start(
            machine,
            name=name,
            console_path=console_path,
            console_kib=console_kib,
            credentials=credentials,
            journal=journal,
            memory_fd=memory_fd,
            gdb_fd=gdb_fd,
            restored=restored,
        )
        timeline.mark("spawned")
        vm = cls(machine, qemu, timeline)
        try:
            await vm._connect(qemu.qmp, command_timeout_s)
        except BaseException as error:
            await vm.kill(LAST_WORDS_S)
            if isinstance(error, MachineError) and not isinstance(error, BootError):
                raise vm._error("starting QEMU", error.message) from error
            raise
        timeline.mark("paused")
        return vm

    @property
    def state(self) -> RunState:
        """Where the machine is in its life."""
        return self._state

    @property
    def pid(self) -> int:
        """QEMU's process id on the host."""
        return self._process.pid

    @property
    def booted(self) -> bool:
        """Whether vminitd has answered."""
        return self._booted

    @property
    def stderr(self) -> str:
        """The end of what QEMU wrote to standard error."""
        return self._process.stderr

    async def restore(self, state_fd: int, offset: int, timeout_s: float) -> None:
        """Become the clone of a template: load what is in the open file `state_fd` from `offset` on.

        Its memory is the template's already (`memory_fd` of `launch`). The machine stays paused.
        Raises BootError when QEMU does not take it; the machine is of no use then.
        """
        from shim.vm import migration

        await self._guarded("restoring the template", migration.load(self._connection(), state_fd, offset, timeout_s))
        self.timeline.mark(RESTORED)

    async def save(self, state_fd: int, offset: int, timeout_s: float) -> str:
        """Write the paused machine's state, less its memory, to the open file `state_fd` from `offset` on.

        Its memory must be a file that is shared (`memory_fd` of `launch`). Answers QEMU's version.
        """
        from shim.vm import migration

        if self._state is not RunState.PAUSED:
            raise StateError(f"the virtual machine is {self._state.value}: only a paused one can be saved")
        return await self._guarded("saving a template", migration.save(self._connection(), state_fd, offset, timeout_s))

    async def printed(self, words: str, timeout_s: float) -> None:
        """Wait until the guest prints `words` on its console. Raises BootError if it does not in time, or ends."""
        await self._booting(self.console.expect(words), timeout_s, f"it did not print {words!r}")

    async def add_vsock(self, backend: VsockBackend, prepared: Awaitable[VsockDevice]) -> None:
        """Plug in a vsock backend, as what its `prepare` answers. The machine owns it from now on."""
        if self._link.is_there:
            raise StateError("the virtual machine has a way to its guest already")
        if backend.shared_memory and not self.machine.shared_memory:
            raise StateError("this way of vsock needs a machine with shared memory")
        adding = self._link.add_vsock(
            backend, prepared, self._devices(), on_lost=lambda reason: self._kill(Cause.VSOCK, reason)
        )
        await self._guarded("adding vsock", adding)

    async def add_disk(self, disk: Disk | JoinedDisk) -> "Seat":
        """Put a disk into one of the machine's drives, or plug one in; the answer is where the guest finds it.

        Raises HostError for its files, ResourceError without a slot, MachineError for QEMU."""
        plugging = self._devices().add_disk(disk) if isinstance(disk, Disk) else self._devices().add_joined_disk(disk)
        return await self._guarded(f"adding disk {disk.serial}", plugging)

    async def add_nic(self, nic: Nic) -> None:
        """Plug in a network interface."""
        await self._guarded(f"adding interface {nic.name}", self._devices().add_nic(nic))

    async def add_share(self, daemon: "Daemon") -> None:
        """Plug in what virtiofsd serves: without it, a program that looks at it could not even be killed."""
        daemon.on_lost(lambda reason: self._kill(Cause.VOLUMES, reason))
        await self._guarded("adding volumes", self._devices().add_share(daemon.connection))

    async def resize_memory(self, requested_mib: int) -> None:
        """Ask the guest to have this much memory on top of its base; `machine.room_mib` is the most.

        MEMORY_DEVICE_SIZE_CHANGE tells what it did. Raises HostError for a size that no machine of this kind can have.
        """
        devices.check_memory(requested_mib, self.machine.room_mib)
        await self._guarded("resizing memory", self._devices().resize_memory(requested_mib))

    async def settle_memory(self, requested_mib: int, *, stall_s: float, limit_s: float) -> int:
        """`resize_memory`, and wait until the guest has done it (capacity.py); answers what it has."""
        return await self._guarded("resizing memory", self._devices().settle_memory(requested_mib, stall_s, limit_s))

    async def remove_device(self, device: str, timeout_s: float) -> None:
        """Take a disk (by serial) or an interface (by name) out of the running guest."""
        if self._state is not RunState.RUNNING:
            raise StateError(f"the virtual machine is {self._state.value}: only a running guest can let go of a device")
        await self._guarded(f"removing {device}", self._devices().remove(device, timeout_s))

    async def run(self) -> None:
        """Let the guest run: for the first time, or again after `pause`."""
        await self._move(RunState.RUNNING, "cont")
        self.timeline.mark("run")

    async def pause(self) -> None:
        """Stop the guest's vCPUs."""
        self._pausing = True
        try:
            await self._move(RunState.PAUSED, "stop")
        finally:
            self._pausing = False

    async def control(self, timeout_s: float) -> socket.socket:
        """The way to vminitd: a connected non-blocking socket, for the caller to own; once.

        With vsock that is vminitd's call. Raises BootError with the console's tail when
        the deadline passes or the machine ends.
        """
        try:
            connection = await self._guarded("booting", self._link.control(timeout_s))
        except BootError:
            raise
        except MachineError as error:
            raise self._error("booting", error.message) from error
        self.timeline.mark("control")
        return connection

    async def hear(self, answer: Awaitable[_T], timeout_s: float) -> _T:
        """Wait for vminitd's first answer, by which the machine has booted.

        Raises BootError with the console's tail when the deadline passes or the machine ends.
        """
        heard = await self._booting(answer, timeout_s, "vminitd did not answer")
        self._booted = True
        self.timeline.mark("answered")
        return heard

    async def qmp(self, command: str, arguments: Mapping[str, object]) -> object:
        """One command of QEMU's for an administrator. Raises MachineError with QEMU's words, StateError."""
        return await self._guarded(command, self._connection().execute(command, arguments))

    async def new_stream(self) -> "tuple[bytes, asyncio.Future[socket.socket]]":
        """A way for one more stream of a process: the token to name to the guest, and our end once it has dialled.

        Cancelling the future withdraws it. It fails when the machine ends. Raises
        ResourceError when there are too many, MachineError.
        """
        return await self._guarded("adding a stream", self._link.new_stream(self._devices()))

    async def withdraw(self, token: bytes) -> None:
        """Take back a stream that the guest has not opened. Raises StateError, MachineError."""
        await self._guarded("withdrawing a stream", self._link.withdraw(token, self._devices()))

    async def kill(self, timeout_s: float) -> Exit:
        """End the machine now and release everything of it. Does no harm to one that has ended.
        Raises MachineError if QEMU cannot be killed within the deadline.
        """
        self._kill(Cause.KILLED, "")
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self.exited)
        except TimeoutError:
            raise MachineError(f"QEMU (pid {self.pid}) did not end within {timeout_s:g} s of SIGKILL") from None

    async def _connect(self, qmp_socket: socket.socket, command_timeout_s: float) -> None:
        # 60 ms of imports, which QEMU uses to start.
        from shim.vm.hotplug import Hotplug
        from shim.vm.qmp import Qmp

        self._qmp = Qmp(command_timeout_s)
        self._qmp.on_event(self._on_event)
        await self._guarded("starting QEMU", self._qmp.open(qmp_socket))
        self._hotplug = Hotplug(self._qmp)
        self._state = transition(self._state, RunState.PAUSED)

    def _connection(self) -> "Qmp":
        if self._qmp is None or self._state is RunState.ENDED:
            raise StateError(f"the virtual machine is {self._state.value}: it takes no commands")
        return self._qmp

    def _devices(self) -> "Hotplug":
        if self._hotplug is None or self._state is RunState.ENDED:
            raise StateError(f"the virtual machine is {self._state.value}: it takes no devices")
        return self._hotplug

    async def _move(self, wanted: RunState, command: str) -> None:
        transition(self._state, wanted)
        await self._guarded(command, self._connection().execute(command))
        if self._state is not RunState.ENDED:
            self._state = transition(self._state, wanted)

    async def _guarded(self, phase: str, work: Coroutine[object, object, _T]) -> _T:
        """Do `work`, or raise BootError if the machine ends first.

        A broken connection is most often QEMU's end, told a moment too early: that is
        waited for, and told instead.
        """
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self.exited), return_when=asyncio.FIRST_COMPLETED)
            if self._lost(task):
                await asyncio.wait((self.exited,), timeout=LAST_WORDS_S)
            if self.exited.done() and not (task.done() and task.exception() is None):
                raise self._error(phase, str(self.exited.result()))
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            elif not task.cancelled():
                task.exception()  # told by another: the end of the machine

    async def _booting(self, work: Awaitable[_T], timeout_s: float, otherwise: str) -> _T:
        """Do `work`, which the machine's boot has to come to, or raise BootError: `otherwise` within that time."""

        async def wait() -> _T:
            try:
                async with asyncio.timeout(timeout_s):
                    return await work
            except TimeoutError:
                raise self._error("booting", f"{otherwise} within {timeout_s:g} s") from None

        return await self._guarded("booting", wait())

    def _lost(self, task: "asyncio.Task[_T]") -> bool:
        """Whether `task` failed and the connection to QEMU is not there (any more)."""
        if self.exited.done() or not task.done() or task.cancelled():
            return False
        return isinstance(task.exception(), MachineError) and not (self._qmp and self._qmp.connected)

    def _error(self, phase: str, reason: str) -> MachineError:
        """What is known of a machine that failed; if QEMU did not even start, with a command to see that by hand."""
        message = failure(phase, reason, self.console, self._process)
        if self._booted:
            return MachineError(message)
        never_talked = self._state is RunState.ENDED and self._hotplug is None
        return BootError(message, hint=f"repeat with: {self.machine.repeat_command()}" if never_talked else "")

    def _kill(self, cause: Cause, detail: str) -> None:
        """End QEMU, unless it has ended by itself: then that is the cause."""
        if self._killed is None and not self._process.ended:
            self._killed, self._kill_detail = cause, detail
        self._process.kill()

    def _on_event(self, event: "Event") -> None:
        match event.name:
            case "SHUTDOWN":
                self._shutdown = str(event.data.get("reason", ""))
            case "GUEST_PANICKED":
                self._panicked = True
            case "VSERPORT_CHANGE" if self._hotplug is not None:
                self._link.on_event(event, self._hotplug)
            case "STOP" if not self._pausing and self._judging is None:
                self._judging = asyncio.create_task(self._judge_stop(), name="vm-judge-stop")

    async def _judge_stop(self) -> None:
        """The vCPUs stopped and not by us: an accelerator that failed leaves QEMU standing there for ever."""
        assert self._qmp is not None
        try:
            answer = await self._qmp.execute("query-status")
        except MachineError:
            return  # QEMU is on its way out: it stops the vCPUs for that, too
        finally:
            self._judging = None
        if isinstance(answer, dict) and answer.get("status") == "internal-error":
            self._kill(Cause.ACCELERATOR, "QEMU's run state is internal-error")

    async def _end(self) -> None:
        """Wait for QEMU's end, release everything, and tell."""
        status = await self._process.exited
        detail = self._kill_detail
        try:
            if self._qmp is not None:
                await self._qmp.drain(LAST_WORDS_S)
                await self._qmp.close(LAST_WORDS_S)
            if self._judging is not None:
                self._judging.cancel()
            self.console.close()
            await self._link.close(LAST_WORDS_S)
        except MachineError as error:  # a daemon that survives SIGKILL: the journal knows it
            detail = "; ".join(filter(None, (detail, error.message)))
        finally:
            self._state = transition(self._state, RunState.ENDED)
            cause = classify(self._shutdown, panicked=self._panicked, killed=self._killed)
            self.exited.set_result(Exit(cause, status, detail))
