"""Snapshots, and the layers that containerd makes of them and unpacks into them."""

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf import empty_pb2

from api import containerd_pb2 as api
from api import types_pb2
from shim.containerd.connection import Connection
from shim.deadlines import CONTAINERD_LAYER_S

_SERVICE: Final = "snapshots.v1.Snapshots"
_DIFF: Final = "diff.v1.Diff"

Mounts = Sequence[types_pb2.Mount]


class Snapshots:
    """Those of one snapshotter, as one namespace sees them."""

    def __init__(self, connection: Connection, snapshotter: str) -> None:
        self._connection = connection
        self._snapshotter = snapshotter

    async def stat(self, key: str) -> api.SnapshotInfo:
        """Its parent and kind. Raises NotFoundError."""
        request = api.StatSnapshotRequest(snapshotter=self._snapshotter, key=key)
        reply = await self._connection.call(f"{_SERVICE}/Stat", request, api.StatSnapshotResponse, self._named(key))
        return reply.info

    async def mounts(self, key: str) -> Mounts:
        """What whoever uses an active snapshot mounts."""
        request = api.MountsRequest(snapshotter=self._snapshotter, key=key)
        reply = await self._connection.call(f"{_SERVICE}/Mounts", request, api.MountsResponse, self._named(key))
        return tuple(reply.mounts)

    async def prepare(self, key: str, parent: str) -> Mounts:
        """A new snapshot to be written to, upon `parent`."""
        return await self._new("Prepare", key, parent)

    async def view(self, key: str, parent: str) -> Mounts:
        """A new snapshot of what `parent` has."""
        return await self._new("View", key, parent)

    async def commit(self, name: str, key: str) -> None:
        """The snapshot `key` is never to change again, and called `name`. Raises AlreadyExistsError."""
        request = api.CommitSnapshotRequest(snapshotter=self._snapshotter, name=name, key=key)
        await self._connection.call(
            f"{_SERVICE}/Commit", request, empty_pb2.Empty, self._named(key), deadline_s=CONTAINERD_LAYER_S
        )

    async def remove(self, key: str) -> None:
        """Remove it, with all that is in it."""
        request = api.RemoveSnapshotRequest(snapshotter=self._snapshotter, key=key)
        await self._connection.call(f"{_SERVICE}/Remove", request, empty_pb2.Empty, self._named(key))

    async def apply(self, layer: api.Descriptor, mounts: Mounts) -> str:
        """Have containerd unpack a layer into a snapshot; the digest of what it unpacked, uncompressed."""
        request = api.ApplyRequest(diff=layer, mounts=mounts)
        reply = await self._connection.call(
            f"{_DIFF}/Apply", request, api.ApplyResponse, f"unpack {layer.digest}", deadline_s=CONTAINERD_LAYER_S
        )
        return reply.applied.digest

    async def diff(
        self, left: Mounts, right: Mounts, media_type: str, ref: str, labels: Mapping[str, str]
    ) -> api.Descriptor:
        """Have containerd mount both and make a layer of what distinguishes `right` from `left`."""
        request = api.DiffRequest(left=left, right=right, media_type=media_type, ref=ref, labels=labels)
        reply = await self._connection.call(
            f"{_DIFF}/Diff", request, api.DiffResponse, "compare snapshots", deadline_s=CONTAINERD_LAYER_S
        )
        return reply.diff

    async def _new(self, method: str, key: str, parent: str) -> Mounts:
        request = api.NewSnapshotRequest(snapshotter=self._snapshotter, key=key, parent=parent)
        reply = await self._connection.call(f"{_SERVICE}/{method}", request, api.MountsResponse, self._named(key))
        return tuple(reply.mounts)

    def _named(self, key: str) -> str:
        return f"snapshot {key} of {self._snapshotter}"
