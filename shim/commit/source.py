"""Where the changes of a container are on the host.

In the snapshot's upper directory, which qemubox's shim fills while the container stands still and at its end, and
overlayfs itself with runc. Where a snapshot is a whole directory (the native snapshotter), containerd compares it with
its parent. Where the changes are inside a file system that containers have written, nobody mounts that here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api import containerd_pb2 as api
from shim.containerd.snapshots import Mounts
from shim.errors import UnsupportedError
from shim.rootfs.mounts import SnapshotWritable, from_messages, read

_RUNTIME: Final = "qemubox"


@dataclass(frozen=True, slots=True)
class Upper:
    """A directory with the changes alone. `overlay`: what was removed is there as whiteouts.

    `image` is the snapshot's own image that takes the container's writes first, if it has one.
    """

    directory: Path
    overlay: bool
    image: Path | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two directories of the host, the whole of before and of after: containerd compares them.

    `directory` is the one of after.
    """

    directory: Path


def is_ours(container: api.Container) -> bool:
    """Whether its runtime is qemubox, by its name (io.containerd.qemubox.v1) or by the path of the shim."""
    return _RUNTIME in container.runtime.name.rpartition("/")[2]


def find(container: api.Container, snapshot: api.SnapshotInfo, mounts: Mounts) -> Upper | Comparison:
    """Where to look. Raises UnsupportedError, which says why there is no such place, and SpecError."""
    named = f"snapshot {container.snapshot_key} of {container.snapshotter}"
    if snapshot.kind != api.SNAPSHOT_ACTIVE:
        raise UnsupportedError(f"{named}: is read-only, so there is nothing to commit")
    plan = read(from_messages(mounts))
    if plan.owners is not None:
        raise UnsupportedError(
            f"{named}: its container has a user namespace, and the owners of its files on the host are not the image's",
            hint="commit a container without --uidmap and --userns-remap",
        )
    if plan.writable is None:
        raise UnsupportedError(f"{named}: is mounted read-only, so there is nothing to commit")
    if isinstance(plan.writable, SnapshotWritable):
        if plan.whole:
            raise UnsupportedError(
                f"{named}: is a file system of its own ({plan.writable.path}), which the container has written,"
                " and qemubox mounts none of those on the host",
                hint="nerdctl commit and ctr snapshots diff do: if you trust the container, use them",
            )
        if not is_ours(container):
            raise UnsupportedError(
                f"{named}: its changes are in {plan.writable.path}, where only the runtime of the container"
                f" ({container.runtime.name}) sees them",
                hint="use the overlayfs snapshotter for containers of this runtime that are to be committed",
            )
        return Upper(plan.writable.path.parent / "fs", overlay=bool(snapshot.parent), image=plan.writable.path)
    if plan.upper is None:
        raise UnsupportedError(f"{named}: has no upper directory")
    if not plan.lower:
        return Comparison(plan.upper) if snapshot.parent else Upper(plan.upper, overlay=False)
    return Upper(plan.upper, overlay=True)
