"""From Create's list of mounts to open disks: the one entry for the rest of the shim.

Everything that a disk consists of is opened here and handed on as a descriptor, because
QEMU runs as a user that may open nothing itself. The result owns the descriptors, and
with them the locks on shared images and on the writable one.

On the host's disk this makes files in the container's data directory and in the snapshot's
place (place.py), which are in the journal before they are made, and images in the cache,
which look after themselves.
Partition tables are files without a name (memfd_create(2)).
"""

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api import guest_pb2, types_pb2
from shim import deadlines
from shim.changes.target import Kind, Target
from shim.errors import HostError, UnsupportedError
from shim.journal import Journal
from shim.rootfs import filesystems, flock, gpt, kept, mounted, writable
from shim.rootfs.cache import LayerCache
from shim.rootfs.mounts import Directory, Image, NewWritable, Plan, SnapshotWritable, check_count, from_messages, read
from shim.rootfs.place import Place
from shim.rootfs.plan import Disk, Extent, GuestLayer, GuestRootfs, arrange, to_message
from shim.rootfs.program import Tool
from shim.rootfs.ready_made import ReadyMade

# The erofs snapshotter's image of an active snapshot (block mode), and the directory beside it that is empty then.
_RWLAYER: Final = "rwlayer.img"
_RWLAYER_UPPER: Final = "fs"
_RECORD: Final = "record"
# What mkfs.erofs made needs no mount options.
_EROFS: Final = Image((), "erofs")


@dataclass(slots=True)
class PreparedRootfs:
    """A container's root file system, ready to be attached.

    `disks` come with open descriptors. Keep this until the machine that has the disks has
    ended: shared images may be removed, and a snapshot's image be given to another machine,
    from then on. `message` is for vminitd. `target` is where changes are to go; None where
    nothing can be written, or the snapshot's own image takes it and nothing else is looked at.
    `place` is where the writable image is, unless the snapshot has its own.
    """

    disks: tuple[Disk, ...]
    message: guest_pb2.Rootfs
    target: Target | None
    place: Place | None
    _own_image: bool
    _open: contextlib.ExitStack

    @property
    def persistent(self) -> bool:
        """Whether the writable file system outlives the machine, so that it must be unmounted before the end."""
        return self._own_image or (self.place is not None and self.place.outlives)

    def close(self) -> None:
        """Close all descriptors, and remove what is not kept. Blocks. A second call does nothing."""
        self._open.close()


@dataclass(frozen=True, slots=True)
class _Layer:
    """A read-only file system of the host: its open files, and how it is mounted."""

    extents: tuple[Extent, ...]
    image: Image


async def prepare(
    mounts: Sequence[types_pb2.Mount],
    *,
    cache: LayerCache,
    data_dir: Path,
    places: Path,
    ready_made: Path,
    writable_size_mib: int,
    journal: Journal,
    mkfs_ext4: str,
) -> PreparedRootfs:
    """Make disks of what the snapshotter mounts.

    `data_dir` is the container's own, made here if missing; a file left in it by an
    earlier start of the container is replaced. Serial numbers derive from its path, so
    they differ between the containers of one machine. `places` is where snapshots have
    theirs (place.py), `ready_made` where empty file systems are. `mkfs_ext4` is a path, or
    a name to look for in PATH. Raises SpecError, UnsupportedError, MissingPartError,
    ResourceError or HostError; then nothing is open, and what is on disk is in the journal.
    """
    plan = await asyncio.to_thread(mounted.with_images, read(from_messages(mounts)))
    name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    upper = _upper_of(plan.writable)
    if upper is not None or _has_images_of_its_own(plan):
        journal.record("path", path=str(data_dir))
        _make_data_dir(data_dir)
    stack = contextlib.ExitStack()
    try:
        place = None
        if plan.upper is not None and plan.writable is not None:
            place = await asyncio.to_thread(Place.claim, places, plan.upper, journal)
            stack.callback(kept.remove_gone, places)
            stack.callback(place.close)
        mkfs = writable.tool(mkfs_ext4, cache.deadline_s)
        work = _Work(plan, cache, mkfs, ready_made, data_dir, place, writable_size_mib << 20, journal, stack)
        layers, top = await work.run()
        check_count(len(layers))
        disks, lower = _join(layers, name, stack)
    except BaseException:
        stack.close()
        raise
    target = guest_writable = None
    if top is not None:
        disks.append(Disk(f"rw-{name}", (top,), read_only=False, partitioned=False))
        snapshot = plan.writable if isinstance(plan.writable, SnapshotWritable) else None
        options = snapshot.options if snapshot else ()
        guest_writable = GuestLayer(disks[-1].serial, 0, snapshot.fstype if snapshot else "ext4", options)
        kind = Kind.OVERLAY if plan.lower else Kind.PLAIN
        if place is not None:
            mirror, taken_up = not place.upper.exists(), place.taken_up
            target = Target(place.snapshot.directory, kind, mirror, top.fd, place.record, taken_up)
        elif upper is not None and not plan.whole:
            target = Target(upper, kind, True, top.fd, data_dir / _RECORD)
    message = to_message(GuestRootfs(tuple(lower), guest_writable, plan.whole, len(plan.lower), plan.owners))
    return PreparedRootfs(tuple(disks), message, target, place, isinstance(plan.writable, SnapshotWritable), stack)


@dataclass(frozen=True, slots=True)
class _Work:
    """What has to be made for one plan. Whatever is opened is put on the stack at once."""

    plan: Plan
    cache: LayerCache
    mkfs_ext4: Tool
    ready_made: Path
    data_dir: Path
    place: Place | None
    writable_bytes: int
    journal: Journal
    stack: contextlib.ExitStack

    async def run(self) -> tuple[list[_Layer], Extent | None]:
        """Open or make all layers, topmost first, and the writable one, side by side."""
        try:
            async with asyncio.TaskGroup() as group:
                top = group.create_task(self._writable())
                upper = group.create_task(self._upper())
                lower = [group.create_task(self._layer(layer)) for layer in self.plan.lower]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        above = upper.result()
        layers = [task.result() for task in lower]
        return (layers if above is None else [above, *layers]), top.result()

    async def _layer(self, layer: Directory | Image) -> _Layer:
        if isinstance(layer, Image):
            return self._image(layer)
        if not layer.committed:
            return await self._image_of(layer.path, self.data_dir / f"{_digest(layer.path)}.erofs")
        found = await self.cache.ensure(layer.path)
        self.stack.callback(found.close)
        return _Layer((Extent(found.fd, found.path, found.size),), _EROFS)

    def _image(self, image: Image) -> _Layer:
        """The snapshotter's own image, as whole as it says that it is."""
        extents = tuple(self._open(path) for path in image.files)
        for extent in extents:
            filesystems.check(extent.fd, extent.path, image.fstype, extent.size)
        if image.fstype == "erofs":
            filesystems.check_joined(extents[0].fd, extents[0].path, [extent.size for extent in extents])
        return _Layer(extents, image)

    async def _upper(self) -> _Layer | None:
        """What the snapshot's upper directory has already, or had when the image that is taken up was made."""
        if self.plan.upper is None:
            return None
        image = self.place.upper if self.place else self.data_dir / f"{_digest(self.plan.upper)}.erofs"
        if self.place and self.place.taken_up:
            return _Layer((self._open(image),), _EROFS) if image.exists() else None
        if not await asyncio.to_thread(_has_content, self.plan.upper):
            return None
        layer = await self._image_of(self.plan.upper, image)
        if self.place:
            await self._settle(layer)
        return layer

    async def _settle(self, layer: _Layer) -> None:
        """What is kept with a writable image must be there after a power loss, as the container's own writes are."""
        for extent in layer.extents:
            try:
                await asyncio.to_thread(os.fsync, extent.fd)
            except OSError as error:
                raise HostError(f"{extent.path}: {error.strerror}") from error

    async def _image_of(self, directory: Path, image: Path) -> _Layer:
        await self.cache.convert(directory, image)
        return _Layer((self._open(image),), _EROFS)

    async def _writable(self) -> Extent | None:
        match self.plan.writable:
            case None:
                return None
            case NewWritable():
                assert self.place is not None  # whoever makes an image for a snapshot has its place
                path = self.place.image
                if not self.place.taken_up:
                    await ReadyMade(self.ready_made, self.mkfs_ext4, self.journal).copy(path, self.writable_bytes)
            case SnapshotWritable(path=path, size_bytes=size_bytes, uuid=uuid):
                if size_bytes and not path.exists():
                    await writable.make(self.mkfs_ext4, path, size_bytes, uuid=uuid)
        extent = self._open(path, os.O_RDWR)
        if isinstance(self.plan.writable, SnapshotWritable):
            filesystems.check(extent.fd, path, self.plan.writable.fstype, extent.size)
        # Whoever looks at a new device of the host's (systemd-udevd) has it locked for that.
        patience_s = deadlines.NEW_DEVICE_S if path.is_block_device() else 0.0
        if not (flock.try_exclusive(extent.fd) or await flock.exclusive_soon(extent.fd, patience_s)):
            raise HostError(f"{path}: in use by another machine", hint="end the container that uses this snapshot")
        return extent

    def _open(self, path: Path, mode: int = os.O_RDONLY) -> Extent:
        try:
            fd = os.open(path, mode | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"{path}: {error.strerror}", hint=_lost(error)) from error
        self.stack.callback(os.close, fd)
        return _extent(fd, path)


def _join(layers: Sequence[_Layer], name: str, stack: contextlib.ExitStack) -> tuple[list[Disk], list[GuestLayer]]:
    """Give every layer its disk, or its partition of a joined one, in order."""
    disks: list[Disk] = []
    guest: list[GuestLayer] = []
    runs = arrange(len(layers))
    for number, run in enumerate(runs):
        serial = f"l{number}-{name}"
        members = [layers[index] for index in run]
        extents = tuple(extent for member in members for extent in member.extents)
        partitioned = len(layers) > len(runs)
        if partitioned:
            table = gpt.table([sum(extent.size for extent in member.extents) for member in members])
            extents = (_nameless(table.head, stack), *extents, _nameless(table.tail, stack))
        disks.append(Disk(serial, extents, read_only=True, partitioned=partitioned))
        for partition, member in enumerate(members, start=1):
            at = partition if partitioned else 0
            guest.append(GuestLayer(serial, at, member.image.fstype, member.image.options))
    return disks, guest


def _nameless(content: bytes, stack: contextlib.ExitStack) -> Extent:
    """A file in memory, opened for reading only as all of a read-only disk must be."""
    with open(os.memfd_create("partition-table", os.MFD_CLOEXEC), "wb") as file:
        file.write(content)
        file.flush()
        fd = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return _extent(fd, Path("partition-table"))


def _extent(fd: int, path: Path) -> Extent:
    size = os.lseek(fd, 0, os.SEEK_END)  # of a block device too
    if size == 0 or size % gpt.SECTOR:
        raise UnsupportedError(f"{path}: {size} bytes, which is no whole number of {gpt.SECTOR}-byte sectors")
    return Extent(fd, path, size)


def _lost(error: OSError) -> str:
    return filesystems.HINT if error.errno == errno.ENOENT else ""


def _upper_of(own: NewWritable | SnapshotWritable | None) -> Path | None:
    """The directory beside a snapshot's own image of which containerd makes a layer (erofs snapshotter)."""
    if not isinstance(own, SnapshotWritable) or own.path.name != _RWLAYER:
        return None
    directory = own.path.with_name(_RWLAYER_UPPER)
    return directory if directory.is_dir() else None


def _has_images_of_its_own(plan: Plan) -> bool:
    """Whether images are made for this start alone: of directories that may change, or are read-only as a whole."""
    read_only = plan.upper is not None and plan.writable is None
    return read_only or any(isinstance(layer, Directory) and not layer.committed for layer in plan.lower)


def _make_data_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"{path}: {error.strerror}") from error


def _has_content(directory: Path) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError as error:
        raise HostError(f"snapshot {directory}: {error.strerror}") from error


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
