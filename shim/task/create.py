"""Create: from a bundle and its mounts to a container in a machine, ready to start.

The order is that of a user's mistakes first and the host's work last: what can be refused
by reading is refused before anything is made. Every step registers its undoing on one
stack; when a step fails the stack is unwound, and when all went well it becomes the
container's, for Delete to unwind.
"""

import asyncio
import functools
from contextlib import AsyncExitStack
from pathlib import Path

from api import guest_pb2, task_pb2
from shim import deadlines, spec, timelines
from shim.anchor import Anchor, start_anchor
from shim.config import Config
from shim.errors import HostError, MissingPartError
from shim.events import Publisher
from shim.hypervisor import choose
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.rootfs.cache import LayerCache
from shim.rootfs.prepare import PreparedRootfs, prepare
from shim.sandbox import Sandbox
from shim.sizing import Bounds, Size, size
from shim.task.container import Container
from shim.task.process import Process, StdioPaths
from shim.task.stdio import ProcessStreams
from shim.template.choice import choose as choose_template
from shim.vm.timeline import Timeline


class Creator:
    """Makes containers. `directory` is this shim's own under the runtime directory."""

    def __init__(
        self, config: Config, identity: Identity, directory: Path, *, bounds: Bounds, events: Publisher, log: Logger
    ) -> None:
        self._config = config
        self._identity = identity
        self._directory = directory
        self._bounds = bounds
        self._events = events
        self._log = log
        self._journal = Journal(directory)

    async def create(self, request: task_pb2.CreateTaskRequest) -> Container:
        """Make the container of `request`, or raise with nothing left behind."""
        timeline = Timeline()
        timeline.mark("create")
        bundle = Path(request.bundle)
        document = await asyncio.to_thread(spec.load, bundle)
        guest_spec = spec.for_guest(document, terminal=request.terminal)
        wanted = size(document, self._bounds)
        paths = StdioPaths(request.terminal, request.stdin, request.stdout, request.stderr)
        async with AsyncExitStack() as undo:
            streams = ProcessStreams(
                terminal=paths.terminal, stdin=paths.stdin, stdout=paths.stdout, stderr=paths.stderr
            )
            undo.push_async_callback(streams.close)
            rootfs = await self._prepare_rootfs(request, undo)
            timeline.mark("rootfs ready")
            sandbox = await self._launch(wanted, rootfs, timeline, undo)
            anchor = await self._start_anchor(undo)
            process = Process(
                container_id=request.id, exec_id="", pid=anchor.pid, paths=paths, guest=sandbox.guest, log=self._log
            )
            process.streams = streams
            undo.push_async_callback(process.release)
            await self._create_in_guest(request.id, guest_spec, rootfs, process, sandbox)
            timeline.mark("created")
            container = Container(
                container_id=request.id,
                bundle=request.bundle,
                rootfs=list(request.rootfs),
                init=process,
                sandbox=sandbox,
                resources=undo.pop_all(),
                events=self._events,
                on_started=functools.partial(self._record, timeline, sandbox),
            )
        process.watch(container.publish_exit)
        return container

    def _record(self, timeline: Timeline, sandbox: Sandbox) -> None:
        """The one line that says where this start's time went."""
        timeline.mark("started")
        phases = timeline.milliseconds()
        self._log.info(
            "boot timeline",
            how="clone" if sandbox.is_clone else "boot",
            **{name.replace(" ", "_"): ms for name, ms in phases.items()},
        )
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

    async def _prepare_rootfs(self, request: task_pb2.CreateTaskRequest, undo: AsyncExitStack) -> PreparedRootfs:
        config = self._config
        cache = LayerCache(
            Path(config.runtime.cache_dir, "layers"),
            limit_mib=config.rootfs.cache_limit_mib,
            mkfs_erofs=config.rootfs.mkfs_erofs,
            deadline_s=config.rootfs.convert_timeout_s,
            journal=self._journal,
        )
        rootfs = await prepare(
            list(request.rootfs),
            cache=cache,
            data_dir=Path(config.runtime.data_dir, self._identity.key),
            writable_size_mib=config.rootfs.writable_mib,
            journal=self._journal,
            mkfs_ext4=config.rootfs.mkfs_ext4,
        )
        undo.callback(rootfs.close)
        return rootfs

    async def _launch(self, wanted: Size, rootfs: PreparedRootfs, timeline: Timeline, undo: AsyncExitStack) -> Sandbox:
        hypervisor = await choose(self._config, self._directory, self._bounds, self._journal, self._log)
        sandbox = await Sandbox.launch(
            hypervisor,
            choose_template(self._config, hypervisor.machine, self._identity.namespace, self._log),
            key=self._identity.key,
            directory=self._directory,
            size=wanted,
            disks=rootfs.disks,
            boot_timeout_s=self._config.vm.boot_timeout_s,
            console_kib=self._config.vm.console_kib,
            log_level=self._config.log.level,
            journal=self._journal,
            timeline=timeline,
            log=self._log,
        )
        undo.push_async_callback(sandbox.stop, flush=rootfs.persistent)
        return sandbox

    async def _start_anchor(self, undo: AsyncExitStack) -> Anchor:
        root = self._directory / "empty"
        root.mkdir(mode=0o555, exist_ok=True)
        marker = f"qemubox-anchor-{self._identity.key}"
        self._journal.record("process", marker=marker)
        try:
            anchor = await start_anchor(marker, root, deadline_s=deadlines.ANCHOR_S)
        except (OSError, TimeoutError) as error:
            raise HostError(f"cannot start the anchor process: {error}") from error
        undo.push_async_callback(anchor.stop)
        return anchor

    async def _create_in_guest(
        self,
        container_id: str,
        guest_spec: spec.GuestSpec,
        rootfs: PreparedRootfs,
        process: Process,
        sandbox: Sandbox,
    ) -> None:
        assert process.streams is not None
        request = guest_pb2.CreateRequest(container_id=container_id, spec=guest_spec.json, rootfs=rootfs.message)
        request.files.extend(await asyncio.to_thread(_read_files, guest_spec.files))
        request.stdio.terminal = process.paths.terminal
        async with sandbox.streams(process.streams, request.stdio):
            await sandbox.guest.call(sandbox.guest.containers.Create(request), deadline_s=deadlines.GUEST_CRUN_S)


def _read_files(files: tuple[spec.HostFile, ...]) -> list[guest_pb2.File]:
    found = []
    for file in files:
        try:
            status, content = file.path.stat(), file.path.read_bytes()
        except OSError as error:
            raise MissingPartError(f"cannot read {file.path} for the container: {error.strerror}") from error
        found.append(
            guest_pb2.File(
                name=file.name, content=content, mode=status.st_mode & 0o7777, uid=status.st_uid, gid=status.st_gid
            )
        )
    return found
