"""A container: its directory, root file system, cgroup and processes, and what the calls of the shim do to them."""

import asyncio
import functools
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from vminitd import deadlines, log, milestones, sysctl
from vminitd.cgroup import PARENT, Cgroup
from vminitd.changes import Changes
from vminitd.copies import Copies
from vminitd.crun import ChildStreams
from vminitd.devices import SHARED, has_usual_rules, without_rules
from vminitd.directory import ContainerDirectory, remove_if_there, write_private
from vminitd.errors import CrunError, KernelError, MountError, RequestError, StateError, TakenError, UnknownError
from vminitd.files import File, Files, has_place
from vminitd.freezer import Freezer
from vminitd.launch import Machinery, Started, discard, launch
from vminitd.oom import more_kills
from vminitd.order import Order
from vminitd.parked import ParkedCreate, take
from vminitd.process import Process
from vminitd.spec import (
    Json,
    for_crun,
    memory_limit,
    parse,
    process_for_crun,
    safe_name,
    wants_terminal,
    without_mounts,
)
from vminitd.state import State
from vminitd.stdio import Stdio, Wish
from vminitd.storage import Storage


class Container:
    """One container, from `create` to `delete`. Ids of processes are unique in it; "" is the first one's."""

    def __init__(self, machinery: Machinery, order: Order) -> None:
        self.id = order.container_id
        self.name = safe_name(order.container_id)
        self.init = Process(self.id, "", order.stdio)
        self._processes = {"": self.init}
        self._documents: dict[str, Json] = {}  # OCI Processes that are registered and not started yet
        self._machinery = machinery
        self._directory = ContainerDirectory(f"{machinery.directory}/{self.name}")
        self._files = Files(self._directory.files)
        self._storage = Storage(self._directory.path)
        self.changes = Changes(self._storage.rootfs)
        self._cgroup = Cgroup(f"{PARENT}/{self.name}")
        self.copies = Copies(machinery, self.init, self._storage.rootfs)
        self._freezer = Freezer(f"container {self.id!r}")
        self._pausing = False
        self._starts = 0
        # Set while no start of a further process is under way.
        self._no_start = asyncio.Event()
        self._no_start.set()
        self._thawing: asyncio.Task[None] | None = None
        self._parked: ParkedCreate | None = None
        self._crun_name = self.name

    async def create(self, order: Order) -> None:
        """Mounts its root file system, connects its streams and lets crun make it. After an error nothing is left.

        crun makes it while the machine's network is on its way; both are there afterwards.
        """
        stdio: Stdio | None = None
        started: Started | None = None
        try:
            self._directory.make()
            # Disks may still be on their way into the machine: the host is called meanwhile.
            uevents = self._machinery.uevents
            mounting = asyncio.create_task(self._storage.mount(uevents, order.rootfs, order.volumes))
            try:
                if order.rootfs.writable is None:  # it must be seen for what it lacks
                    await asyncio.wait([mounting])
                spec = await self._storage.mount_block_volumes(uevents, order.block_volumes, order.spec)
                config, settings = self._configuration(order._replace(spec=spec))
                self._parked = take(self._machinery.prepared.parked, order.stdio, config)
                stdio = await self._open_stdio(order.stdio)
            finally:
                # Never cancelled: a mount that a thread is about to make could not be found again.
                await asyncio.wait([mounting])
                failure = mounting.exception()
            if failure is not None:
                raise failure
            milestones.mark("mounted")
            log.debug("mounted and connected", container=self.id)
            started = await launch(
                self._machinery,
                stdio,
                lambda streams, console: self._crun_create(config, streams, console),
                self._parked.console if self._parked else "",
            )
            milestones.mark("created")
            await self._machinery.network()
            sysctl.apply(settings)
        except BaseException:
            if started is not None:
                await discard(started)
            if stdio is not None:
                stdio.close()
            await self._undo_create()
            raise
        self.init.adopt(started.pid, stdio, started.ended, self._init_ended)
        stdio.begin(started.master)
        log.debug("created", container=self.id, pid=started.pid, crun=self._crun_name)

    def _configuration(self, order: Order) -> tuple[bytes, dict[str, str]]:
        """For crun, and the settings of the network, which are not crun's."""
        spec, network = sysctl.without_network(parse(order.spec, "the specification"))
        if wants_terminal(spec.get("process")) != order.stdio.terminal:
            raise RequestError("process.terminal of the specification and the streams' terminal are not the same")
        if self._machinery.prepared.device_rules and has_usual_rules(spec):
            spec = without_rules(spec)
            self._cgroup = Cgroup(f"{SHARED}/{self.name}")
        if order.rootfs.writable is None:
            dispensable = {file.name for file in order.files if file.dispensable}
            spec = without_mounts(spec, dispensable, functools.partial(has_place, self._storage.rootfs.path))
        files = self._files.write(order.files)
        rootfs, share = self._storage.rootfs.path, self._storage.share(order.volumes)
        return for_crun(spec, rootfs=rootfs, cgroup=self._cgroup.path, files=files, share=share), network

    async def _open_stdio(self, wish: Wish) -> Stdio:
        if self._parked is None:
            return await Stdio.open(wish, self._machinery.dial)
        stdio = await Stdio.open(wish, self._machinery.dial, self._parked.pipes)
        self._parked.pipes = None
        return stdio

    async def _crun_create(self, config: bytes, streams: ChildStreams | None, console: str) -> int:
        crun, bundle = self._machinery.crun, self._directory.bundle
        if self._parked is not None and self._parked.waits:
            self._crun_name = self._parked.name
            return await self._parked.go(config)
        write_private(f"{bundle}/config.json", config)
        return await crun.create(self.name, bundle, streams, console)

    async def _undo_create(self) -> None:
        try:
            await self._dismantle()
        except (CrunError, MountError, OSError) as error:
            log.error("could not undo a failed create", container=self.id, error=str(error))

    def rewrite(self, files: Sequence[File]) -> None:
        """Gives files that `create` was given other content. Raises UnknownError, RequestError or KernelError."""
        self._files.rewrite(files)

    def process(self, exec_id: str) -> Process:
        """Raises UnknownError."""
        process = self._processes.get(exec_id)
        if process is None:
            raise UnknownError(f"container {self.id!r} has no process {exec_id!r}")
        return process

    def add(self, exec_id: str, document: bytes, wish: Wish) -> None:
        """Registers a further process: `document` is an OCI Process. Raises TakenError, StateError or RequestError."""
        if exec_id in self._processes:
            raise TakenError(f"container {self.id!r} already has a process {exec_id!r}")
        self._require_running(State.CREATED)
        parsed = parse(document, "the process")
        if wants_terminal(parsed) != wish.terminal:
            raise RequestError("terminal of the process and of its streams are not the same")
        wish.check()
        self._processes[exec_id] = Process(self.id, exec_id, wish)
        self._documents[exec_id] = parsed

    async def start(self, exec_id: str) -> int:
        """Starts the process; gives its pid in the guest. Raises StateError, CrunError or KernelError."""
        process = self.process(exec_id)
        if process is not self.init:
            self._require_running(State.CREATED)
        process.move(State.STARTING)
        if process is self.init:
            await self._start_init()
            milestones.mark("started")
        else:
            with self._start_under_way():
                await self._start_further(process)
        log.debug("started", process=str(process), pid=process.pid)
        if process.state is State.STARTING:  # it may have ended already
            process.move(State.RUNNING)
        return process.pid

    async def _start_init(self) -> None:
        try:
            await self._machinery.crun.start(self._crun_name)
        except BaseException:
            self._end_init()  # it is neither created nor running now; nothing but its end makes sense
            raise

    def cannot_start(self, exec_id: str) -> None:
        """The machine has not what its start needs. The first process ends: the shim has it for one that runs."""
        if self.process(exec_id) is self.init and self.init.state is State.CREATED:
            self._end_init()

    def _end_init(self) -> None:
        with suppress(UnknownError):  # it has ended by itself
            self.init.kill(signal.SIGKILL)

    async def _start_further(self, process: Process) -> None:
        stdio: Stdio | None = None
        path = self._directory.new_file()
        try:
            write_private(path, process_for_crun(self._documents.pop(process.exec_id), process.size))
            stdio = await Stdio.open(process.wish, self._machinery.dial)
            crun = self._machinery.crun
            started = await launch(
                self._machinery, stdio, lambda streams, console: crun.exec(self._crun_name, path, streams, console)
            )
        except BaseException:
            if stdio is not None:
                stdio.close()
            process.fail()
            raise
        finally:
            remove_if_there(path)
        process.adopt(started.pid, stdio, started.ended, self._cgroup.oom_kills)
        stdio.begin(started.master)

    async def kill(self, exec_id: str, number: int, *, everyone: bool) -> None:
        """Signals a process, or every process of the container. Raises UnknownError, StateError or RequestError."""
        process = self.process(exec_id)
        if not 0 <= number <= signal.SIGRTMAX:
            raise RequestError(f"there is no signal {number}")
        if everyone and self.init.state is not State.CREATED:
            process.kill(0)
            self._cgroup.kill(number)
        else:  # one that has not been started has nobody beside it
            process.kill(number)
        if number == signal.SIGKILL and (everyone or process is self.init):
            # A frozen process dies of it, but not while it has to write: an open file without a name is removed then.
            await self._thaw_at_end()

    async def delete(self, exec_id: str) -> None:
        """Frees what a process holds that has ended or never ran; the container, if it is the first one's.

        Raises UnknownError, StateError, and MountError or CrunError for what could not be freed.
        """
        process = self.process(exec_id)
        if process.state not in (State.CREATED, State.STOPPED):
            raise StateError(f"{process} is {process.state.value}: it must be stopped before it is deleted")
        if process is self.init:
            for each in self._processes.values():
                await each.reap(deadlines.KILLED)
        else:
            await process.reap(deadlines.KILLED)
        process.move(State.DELETED)
        if process is self.init:
            await self._dismantle()
        else:
            self._documents.pop(exec_id, None)
            del self._processes[exec_id]

    def pids(self) -> list[tuple[int, str]]:
        """Every process in it as (pid in the guest, its exec id, if it is a registered one)."""
        known = {process.pid: process.exec_id for process in self._processes.values() if process.pid}
        return [(pid, known.get(pid, "")) for pid in self._cgroup.pids()]

    async def pause(self) -> None:
        """Stops its processes, and writes to its file system after that, with all of it written back.

        Raises StateError or KernelError; then it runs as before.
        """
        self._require_running()
        end = asyncio.get_running_loop().time() + deadlines.FREEZE
        self._pausing = True
        try:
            # What starts is not in the cgroup yet, or is crun, which would stand still with half of it done.
            await self._starts_done(deadlines.FREEZE)
            left_s = end - asyncio.get_running_loop().time()
            await self._freezer.freeze(self._cgroup, self._storage.writable, left_s)
        finally:
            self._pausing = False
        try:
            self.init.move(State.PAUSED)
            self.copies.paused()
        except StateError:  # it has ended meanwhile
            await self._freezer.thaw()
            raise

    async def _starts_done(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout(deadline_s):
                await self._no_start.wait()
        except TimeoutError:
            raise KernelError(f"a process of {self.init} is still being started after {deadline_s:g} s") from None

    @contextmanager
    def _start_under_way(self) -> Iterator[None]:
        self._starts += 1
        self._no_start.clear()
        try:
            yield
        finally:
            self._starts -= 1
            if not self._starts:
                self._no_start.set()

    async def resume(self) -> None:
        """Lets it run, and calls off a pause that is under way. Raises KernelError, or StateError if it has ended."""
        await self._freezer.thaw()
        self.copies.resumed()
        if self.init.state is not State.RUNNING:
            self.init.move(State.RUNNING)

    async def update(self, resources: bytes) -> None:
        """Sets new limits: an OCI LinuxResources. Raises StateError, RequestError or CrunError.

        StateError also for a memory limit that is less than what is in use; nothing is changed then.
        """
        limit = memory_limit(parse(resources, "the resources"))
        if self.init.state in (State.STOPPED, State.DELETED):
            raise StateError(f"{self.init} is {self.init.state.value}")
        path = self._directory.new_file()
        write_private(path, resources)
        try:
            async with self._cgroup.held_below(limit) if limit else nullcontext():
                await self._machinery.crun.update(self._crun_name, path)
        finally:
            remove_if_there(path)

    def statistics(self) -> dict[str, bytes]:
        """The files of its cgroup."""
        return self._cgroup.figures.read()

    async def oom_kills(self, known: int) -> int:
        """How many of its processes the kernel has killed for want of memory, once those are more than `known`.

        Raises UnknownError if it never is, because the cgroup is gone.
        """
        return await more_kills(self._cgroup.directory, known)

    async def kill_all(self, number: int) -> None:
        """For the machine's end: signals its first process (SIGKILL: all), if there still is one, paused or not."""
        if number == signal.SIGKILL:
            self._cgroup.kill(number)
        with suppress(UnknownError, StateError):
            self.init.kill(number)
        await self._thaw_at_end()

    async def gone(self) -> None:
        """Returns when its first process has ended."""
        await self.init.gone.wait()

    async def unmount(self) -> None:
        """For the machine's end: what can be written to. Raises MountError."""
        await self.copies.close()
        await asyncio.to_thread(self._storage.unmount, layers=False)

    def _require_running(self, *also: State) -> None:
        if self.init.state not in (State.RUNNING, *also):
            raise StateError(f"{self.init} is {self.init.state.value}, and not running")
        if self._pausing:
            raise StateError(f"{self.init} is being paused")

    def _init_ended(self) -> int:
        self.copies.ended()
        self._thawing = asyncio.create_task(self._thaw_at_end(), name=f"thaw {self.init}")
        return self._cgroup.oom_kills()

    async def _thaw_at_end(self) -> None:
        """What has ended, or is about to, must not hold anything frozen."""
        try:
            await self._freezer.thaw()
        except KernelError as error:
            log.error("at a container's end", error=error.message)

    async def _dismantle(self) -> None:
        """Takes it all down. Every step is tried; the first error is raised at the end."""
        errors: list[Exception] = []
        await self._thaw_at_end()
        await self.copies.close()
        try:
            await self._machinery.crun.delete(self._crun_name)
        except CrunError as error:
            errors.append(error)
        self._cgroup.figures.close()
        try:
            if self._parked is not None:
                await self._parked.close()
        except OSError as error:
            errors.append(error)
        try:
            await asyncio.to_thread(self._storage.unmount)
            self._directory.remove()
        except (MountError, OSError) as error:
            errors.append(error)
        if errors:
            raise errors[0]
