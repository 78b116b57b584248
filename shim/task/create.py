"""Create: from a bundle and its mounts to a container in a machine, ready to start.

The order is that of a user's mistakes first and the host's work last: what can be refused
by reading is refused before anything is made. Every step registers its undoing on one
stack; when a step fails the stack is unwound, and when all went well it becomes the
container's, for Delete to unwind.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path

from api import guest_pb2, task_pb2
from shim import block_volumes, deadlines, inspection, spec, timelines
from shim.anchor import Anchor, Anchors
from shim.annotations import Wishes
from shim.both import both
from shim.errors import HostError, MachineError
from shim.events import Publisher
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.network import names
from shim.network.network import ContainerNetwork
from shim.network.plan import Plan, Way, plan
from shim.prelaunch import Launched, Prelaunch
from shim.rootfs import place, ready_made
from shim.rootfs.cache import LayerCache
from shim.rootfs.explained import explained
from shim.rootfs.prepare import PreparedRootfs, prepare
from shim.sandbox import Furniture, Sandbox, machine_name
from shim.sizing import Bounds, Size, size
from shim.task.container import Container
from shim.task.hooks import Hooks
from shim.task.host_files import HostFiles
from shim.task.logger import Loggers
from shim.task.process import Process, StdioPaths
from shim.task.resize import Resizer
from shim.task.stats import Statistics
from shim.task.stdio import ProcessStreams
from shim.task.write_back import Changes, is_wanted
from shim.tracing.phases import phases_of
from shim.vm import devices
from shim.vm.timeline import Timeline
from shim.volumes.share import Share

_Done = Coroutine[object, object, None]


class Creator:
    """Makes containers. `directory` is this shim's own under the runtime directory.

    `guest_log_level` is how much vminitd is to say.
    """

    def __init__(
        self,
        wishes: Wishes,
        identity: Identity,
        directory: Path,
        *,
        bounds: Bounds,
        anchors: Anchors,
        events: Publisher,
        guest_log_level: str,
        log: Logger,
    ) -> None:
        self._wishes = wishes
        self._config = config = wishes.config
        self._identity = identity
        self._directory = directory
        self._bounds = bounds
        self._anchors = anchors
        self._events = events
        self._guest_log_level = guest_log_level
        self._log = log
        self._journal = Journal(directory)
        self._loggers = Loggers(identity.namespace, self._journal, log)
        self._prelaunch = Prelaunch(config, identity, directory, bounds=bounds, journal=self._journal, log=log)

    def prepare(self, *, volumes: bool = False) -> None:
        """Start a machine for the container that is to come, unless it will be refused. It may want `volumes`."""
        if not self._wishes.refused:
            self._prelaunch.begin(shared_memory=volumes)

    async def close(self) -> None:
        """Let go of what was prepared for a container that never came."""
        await self._prelaunch.close()

    async def create(self, request: task_pb2.CreateTaskRequest) -> Container:
        """Make the container of `request`, or raise with nothing left behind."""
        timeline = self._prelaunch.timeline
        timeline.mark("create")
        with phases_of(timeline):
            return await self._create(request, timeline)

    async def _create(self, request: task_pb2.CreateTaskRequest, timeline: Timeline) -> Container:
        bundle = Path(request.bundle)
        document = await asyncio.to_thread(spec.load, bundle)
        self._wishes.check(document)
        wanted = size(document, self._bounds)
        hooks = Hooks(
            document,
            container_id=request.id,
            bundle=request.bundle,
            directory=self._directory,
            journal=self._journal,
            log=self._log,
        )
        network_plan = plan(
            document,
            hooked=hooks.in_create,
            namespace=self._identity.namespace,
            network=self._config.network.name,
        )
        guest_spec = await _in_time(
            functools.partial(
                spec.for_guest,
                document,
                terminal=request.terminal,
                vcpus=wanted.cpus,
                names=network_plan.way is Way.CONFIGURED,
                bundle=bundle,
            )
        )
        writes_back = is_wanted(self._config.rootfs.write_back, document)
        paths = StdioPaths(request.terminal, request.stdin, request.stdout, request.stderr)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(hooks.deleted)
            blocks = await block_volumes.open_all(guest_spec.block_volumes, self._identity.key)
            undo.callback(blocks.close)
            streams = ProcessStreams(
                terminal=paths.terminal, stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr
            )
            undo.push_async_callback(streams.close)
            await streams.open(self._loggers, request.id)
            network = self._new_network(network_plan, str(document.get("hostname") or ""))
            undo.push_async_callback(network.close)
            share = self._share(guest_spec, undo)
            rootfs, anchor = await both(
                self._prepare_rootfs(request, undo), self._prepare_network(network, hooks, wanted.cpus, undo)
            )
            files = HostFiles(request.id, guest_spec.files, self._log)
            undo.push_async_callback(files.close)

            async def create_in_guest(sandbox: Sandbox) -> None:
                message = guest_pb2.CreateRequest(
                    container_id=request.id, spec=guest_spec.json, rootfs=sandbox.rootfs(rootfs.message)
                )
                message.block_volumes.extend(blocks.messages(sandbox.seat))
                message.volumes = devices.SHARE if share.wanted else ""
                message.files.extend(await asyncio.to_thread(files.read))
                message.files.extend(names.messages(guest_spec.own_files, network.names))
                with explained(sandbox.seated(rootfs.disks)):
                    await self._create_in_guest(message, paths, streams, sandbox)

            async def before_start() -> guest_pb2.NetworkConfig | None:
                found = await network.begin(anchor, sandbox, wanted.cpus)
                if found is not None and guest_spec.own_files:
                    await sandbox.rewrite(request.id, names.messages(guest_spec.own_files, network.names))
                return found

            furniture = Furniture(wanted, (*rootfs.disks, *blocks.disks), network.connection, share)
            sandbox = await self._launch(furniture, network, create_in_guest)
            undo.push_async_callback(lambda: sandbox.stop(flush=rootfs.persistent or blocks.persistent))
            files.begin(sandbox.guest)
            undo.push_async_callback(network.stop_forwarding)
            process = Process(
                container_id=request.id, exec_id="", pid=anchor.pid, paths=paths, guest=sandbox.guest, log=self._log
            )
            process.streams = streams
            undo.push_async_callback(process.release)
            timeline.mark("created")
            container = Container(
                container_id=request.id,
                bundle=request.bundle,
                rootfs=list(request.rootfs),
                init=process,
                sandbox=sandbox,
                changes=Changes(request.id, sandbox.guest, rootfs, enabled=writes_back, log=self._log),
                resizer=self._resizer(request.id, sandbox, network, wanted, document),
                statistics=Statistics(request.id, sandbox.guest, network=network.counters),
                resources=undo.pop_all(),
                events=self._events,
                before_start=before_start,
                on_started=functools.partial(self._record, timeline, sandbox, network, wanted),
                new_anchor=lambda: self._new_anchor(network.fd),
                hooks=hooks,
                loggers=self._loggers,
                log=self._log,
            )
        container.watch(anchor)
        return container

    def _resizer(
        self, container_id: str, sandbox: Sandbox, network: ContainerNetwork, size: Size, document: spec.Json
    ) -> Resizer:
        resources = spec.guest_resources(spec.section(spec.section(document, "linux"), "resources"), size.cpus)
        return Resizer(
            container_id,
            sandbox,
            size=size,
            resources=resources,
            bounds=self._bounds,
            on_resized=functools.partial(self._show, sandbox, network),
            log=self._log,
        )

    def _record(
        self,
        timeline: Timeline,
        sandbox: Sandbox,
        network: ContainerNetwork,
        wanted: Size,
        reply: guest_pb2.StartResponse,
    ) -> None:
        """The one line that says where this start's time went."""
        timeline.mark("started")
        sandbox.hear(reply)
        phases = timeline.milliseconds()
        self._log.info(
            "boot timeline",
            how="clone" if sandbox.is_clone else "boot",
            memory=sandbox.memory,
            **{name.replace(" ", "_"): ms for name, ms in phases.items()},
        )
        self._show(sandbox, network, wanted)
        try:
            timelines.append(
                Path(self._config.runtime.state_dir),
                namespace=self._identity.namespace,
                container_id=self._identity.container_id,
                phases=phases,
                guest=sandbox.milestones,
                template=sandbox.is_clone,
            )
        except OSError as error:  # a full tmpfs must not stop a container
            self._log.warning("boot timeline not kept", error=str(error))

    def _show(self, sandbox: Sandbox, network: ContainerNetwork, size: Size) -> None:
        """For `qemubox inspect`: what the machine is, now of that size."""
        identity = self._identity
        try:
            shown = sandbox.inspect(identity.namespace, identity.container_id, size, network.path, network.interfaces())
            inspection.write(self._directory, shown)
        except OSError as error:  # see above
            self._log.warning("the machine is not shown", error=str(error))

    async def _prepare_rootfs(self, request: task_pb2.CreateTaskRequest, undo: AsyncExitStack) -> PreparedRootfs:
        config = self._config
        cache = LayerCache(
            Path(config.runtime.cache_dir, "layers"),
            limit_mib=config.rootfs.cache_limit_mib,
            mkfs_erofs=config.rootfs.mkfs_erofs,
            deadline_s=config.rootfs.convert_timeout_s,
            journal=self._journal,
            log=self._log,
        )
        rootfs = await prepare(
            list(request.rootfs),
            cache=cache,
            data_dir=Path(config.runtime.data_dir, self._identity.key),
            places=Path(config.runtime.data_dir, place.DIRECTORY),
            ready_made=Path(config.runtime.cache_dir, ready_made.DIRECTORY),
            writable_size_mib=config.rootfs.writable_mib,
            journal=self._journal,
            mkfs_ext4=config.rootfs.mkfs_ext4,
        )
        undo.push_async_callback(asyncio.to_thread, rootfs.close)
        self._prelaunch.timeline.mark("rootfs ready")
        return rootfs

    def _share(self, guest_spec: spec.GuestSpec, undo: AsyncExitStack) -> Share:
        share = Share(
            guest_spec.volumes,
            configured=self._config.volumes.daemon,
            directory=self._directory,
            source=self._anchors.source,
            journal=self._journal,
            log=self._log,
        )
        undo.push_async_callback(share.close)
        share.begin()
        return share

    def _new_network(self, network_plan: Plan, hostname: str) -> ContainerNetwork:
        return ContainerNetwork(
            network_plan,
            self._identity,
            self._directory,
            hostname=hostname or machine_name(self._identity.key),
            config=self._config,
            journal=self._journal,
            log=self._log,
        )

    async def _prepare_network(
        self, network: ContainerNetwork, hooks: Hooks, vcpus: int, undo: AsyncExitStack
    ) -> Anchor:
        """A network namespace with what hooks, or CNI, make of it, and the anchor in it."""
        await network.open()
        anchor = await self._new_anchor(network.anchor_fd, movable=True)
        undo.push_async_callback(anchor.stop)
        await hooks.create_runtime(anchor.pid)
        self._prelaunch.timeline.mark("hooks run")
        await network.connect(vcpus)
        self._prelaunch.timeline.mark("network ready")
        return anchor

    async def _launch(
        self, furniture: Furniture, network: ContainerNetwork, along: Callable[[Sandbox], _Done]
    ) -> Sandbox:
        """A machine with the container in it. A clone that fails before it answers is replaced by one that boots."""
        try:
            return await self._launch_either(furniture, along)
        finally:
            network.settled()

    async def _launch_either(self, furniture: Furniture, along: Callable[[Sandbox], _Done]) -> Sandbox:
        launched = await self._prelaunch.take(shared_memory=furniture.share.wanted)
        try:
            return await self._furnish(launched, furniture, along)
        except MachineError as error:
            if not launched.template or launched.vm.booted:
                raise
            self._log.warning("cold boot: the template's clone failed", template=launched.template, error=str(error))
            self._prelaunch.timeline.mark("clone failed")
        launched = await self._prelaunch.take_cold(shared_memory=furniture.share.wanted)
        return await self._furnish(launched, furniture, along)

    async def _furnish(
        self,
        launched: Launched,
        furniture: Furniture,
        along: Callable[[Sandbox], _Done],
    ) -> Sandbox:
        return await Sandbox.launch(
            launched,
            key=self._identity.key,
            furniture=furniture,
            boot_timeout_s=self._config.vm.boot_timeout_s,
            log_level=self._guest_log_level,
            along=along,
            log=self._log,
        )

    async def _new_anchor(self, netns_fd: int, *, movable: bool = False) -> Anchor:
        """Start an anchor, in that network namespace or, with -1, one of its own.

        The marker, which all of this container's have, is in the journal (fork_source).
        """
        root = self._directory / "empty"
        root.mkdir(mode=0o555, exist_ok=True)
        try:
            deadline_s = deadlines.ANCHOR_S
            return await self._anchors.start(root, netns_fd=netns_fd, movable=movable, deadline_s=deadline_s)
        except (OSError, TimeoutError) as error:
            raise HostError(f"cannot start the anchor process: {error}") from error

    async def _create_in_guest(
        self, message: guest_pb2.CreateRequest, paths: StdioPaths, streams: ProcessStreams, sandbox: Sandbox
    ) -> None:
        message.stdio.terminal = paths.terminal
        async with sandbox.streams(streams, message.stdio):
            deadline_s = self._config.vm.boot_timeout_s + deadlines.GUEST_CRUN_S
            await sandbox.guest.call(sandbox.guest.containers.Create(message), deadline_s=deadline_s)


async def _in_time(look: Callable[[], spec.GuestSpec]) -> spec.GuestSpec:
    """What comes of looking at the sources of mounts, in a thread. Raises HostError where one does not answer."""
    try:
        async with asyncio.timeout(deadlines.SOURCES_S):
            return await asyncio.to_thread(look)
    except TimeoutError:
        raise HostError(
            f"a source of the container's mounts does not answer within {deadlines.SOURCES_S:g} s",
            hint="look at the host's network file systems",
        ) from None
