"""The order of a commit: look and refuse, lease, pause, layer, resume, unpack, image.

The container stands still only while its layer is read. Whatever happens it goes on afterwards, and what was made until
then belongs to the lease alone, so containerd collects it.
"""

import asyncio
import contextlib
import datetime
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from api import containerd_pb2 as api
from api import task_types_pb2 as states
from shim.commit import document, layer, returned, source, tree
from shim.commit.base import Base, find_base
from shim.commit.change import Json, changed
from shim.commit.packing import Packing
from shim.commit.source import Upper
from shim.config import Config, load
from shim.containerd.client import Client
from shim.containerd.snapshots import Snapshots
from shim.deadlines import CONTAINERD_BACK_S, CONTAINERD_PAUSE_S
from shim.errors import AlreadyExistsError, HostError, QemuboxError, SpecError, StateError
from shim.rootfs import flock

_RETRY_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asks for. `name` is a full one (reference.full_name)."""

    container: str
    name: str
    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    pause: bool = True
    compressed: bool = True


@dataclass(frozen=True, slots=True)
class _Work:
    """All that was found out before anything is made."""

    client: Client
    wish: Wish
    container: api.Container
    snapshots: Snapshots
    parent: str
    place: "Upper | source.Comparison"
    base: Base
    settings: Json
    ref: str
    config: Config | None


async def commit(client: Client, wish: Wish, left_out: Callable[[str], None]) -> api.Descriptor:
    """Make an image of a container's changes; its manifest. `left_out` is told of paths that no layer can hold.

    Raises the errors of `shim.errors`; then nothing is left but what is collected with the lease.
    """
    work = await _look(client, wish)
    async with client.lease():
        with _alone(work):
            async with _standing_still(work):
                made = await _layer(work, left_out)
        chain = document.chain_id([*document.diff_ids_of(work.base.config), made.diff_id])
        await _unpack(work, made, chain)
        return await _image(work, made, chain)


async def _look(client: Client, wish: Wish) -> _Work:
    container = await client.container(wish.container)
    if not container.snapshot_key:
        raise SpecError(
            f"container {container.id}: its root file system is no snapshot", hint="run it from an image to commit it"
        )
    snapshots = client.snapshots(container.snapshotter)
    info = await snapshots.stat(container.snapshot_key)
    place = source.find(container, info, await snapshots.mounts(container.snapshot_key))
    config = load() if source.is_ours(container) else None
    if config is not None:
        returned.check_wanted(container, config)
    base = await find_base(client, container, info.parent)
    before = base.config.get("config")
    settings = changed(before if isinstance(before, dict) else {}, wish.changes)
    ref = f"qemubox-commit-{secrets.token_hex(8)}"
    return _Work(client, wish, container, snapshots, info.parent, place, base, settings, ref, config)


@contextlib.contextmanager
def _alone(work: _Work) -> Iterator[None]:
    """Another commit of the same container would end the pause of this one, or go on without it."""
    try:
        fd = os.open(work.place.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{work.place.directory}: {error.strerror}") from error
    try:
        if not flock.try_exclusive(fd):
            raise StateError(f"container {work.container.id}: is being committed already", hint="try again later")
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def _standing_still(work: _Work) -> AsyncIterator[None]:
    """The container's processes do nothing in here, if they can be made to, and go on afterwards if they did before."""
    client, container, pause = work.client, work.container, work.wish.pause
    status = await client.status(container.id)
    if status in (states.PAUSING, states.UNKNOWN):
        raise StateError(
            f"container {container.id}: its task is {states.Status.Name(status).lower()}", hint="try again later"
        )
    if status == states.RUNNING and not pause and work.config is not None:
        raise StateError(
            f"container {container.id}: runs in a machine, and what it writes is on the host once it is paused",
            hint="leave out --no-pause",
        )
    if status != states.RUNNING or not pause:
        if status != states.PAUSED:
            _check_ended(work, status)
        yield
        return
    # A pause that has been asked for comes, whether or not anybody waits for it, or containerd is there to tell of it.
    pausing = asyncio.ensure_future(client.pause(container.id))
    try:
        await _paused(work, asyncio.shield(pausing))
        yield
    finally:
        going_on = asyncio.ensure_future(_go_on(client, container.id, pausing))
        try:
            await asyncio.shield(going_on)
        except asyncio.CancelledError:  # a signal that came only now
            await going_on
            raise


async def _go_on(client: Client, container: str, pausing: "asyncio.Future[None]") -> None:
    """Take the pause back, whether or not it was heard that it came. Raises HostError."""
    await asyncio.wait([pausing])
    if not isinstance(pausing.exception(), StateError):  # that is the answer where somebody else has paused it
        await _resume(client, container)


async def _resume(client: Client, container: str) -> None:
    """Have it go on. Where containerd has ended it is tried until it is back. Raises HostError."""
    begun = time.monotonic()
    while True:
        failure: QemuboxError | None = None
        try:
            status = await client.status(container)
            if status == states.PAUSED:
                await client.resume(container)
            if status != states.PAUSING:
                return
        except QemuboxError as error:
            failure = error
        if time.monotonic() - begun > (CONTAINERD_BACK_S if failure else CONTAINERD_PAUSE_S):
            why = failure.message if failure else "its task is pausing"
            hint = f"resume it: ctr tasks resume {container}"
            raise HostError(f"container {container}: is still paused: {why}", hint=hint) from failure
        await asyncio.sleep(_RETRY_S)


async def _paused(work: _Work, pausing: "asyncio.Future[None]") -> None:
    """One that has ended meanwhile stands still, too."""
    try:
        await pausing
    except QemuboxError:
        status = await work.client.status(work.container.id)
        if status not in (None, states.STOPPED):
            raise
        _check_ended(work, status)


def _check_ended(work: _Work, status: "states.Status | None") -> None:
    if work.config is not None:
        returned.check_ended(work.container, work.place, work.config, has_task=status is not None)


async def _layer(work: _Work, left_out: Callable[[str], None]) -> document.Layer:
    """The layer as a blob in the content store."""
    media_type = document.layer_type(work.base.manifest_type, compressed=work.wish.compressed)
    if not isinstance(work.place, Upper):
        return await _compared(work, media_type)
    nodes = tree.walk(work.place.directory)
    read = layer.pieces(nodes, overlay=work.place.overlay, left_out=left_out)
    packing = Packing(read, compressed=work.wish.compressed)
    try:
        async with work.client.content.writer(work.ref) as writer:
            while piece := await _in_thread(packing.next):
                await writer.write(piece)
            await writer.commit(packing.digest, {"containerd.io/uncompressed": packing.diff_id})
    finally:
        read.close()
        nodes.close()
    return document.Layer(media_type, packing.digest, packing.size, packing.diff_id)


async def _in_thread(function: Callable[[], bytes]) -> bytes:
    """In a thread, which is waited for even if we are cancelled: it reads what is about to be closed."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        return await asyncio.shield(running)
    finally:
        await asyncio.wait([running])


async def _compared(work: _Work, media_type: str) -> document.Layer:
    """Two whole directories: containerd makes the layer."""
    key = f"{work.ref}-view"
    left = await work.snapshots.view(key, work.parent)
    try:
        right = await work.snapshots.mounts(work.container.snapshot_key)
        made = await work.snapshots.diff(left, right, media_type, work.ref, {})
    finally:
        await work.snapshots.remove(key)
    info = await work.client.content.info(made.digest)
    diff_id = info.labels.get("containerd.io/uncompressed", "") if info else ""
    if not diff_id:
        raise HostError(f"layer {made.digest}: containerd has made it without saying of which tar")
    return document.Layer(made.media_type, made.digest, made.size, diff_id)


async def _unpack(work: _Work, made: document.Layer, chain: str) -> None:
    """A snapshot of the new image, so that it runs at once; from a layer, which is what every other host would do."""
    key = f"{work.ref}-unpack"
    mounts = await work.snapshots.prepare(key, work.parent)
    descriptor = api.Descriptor(media_type=made.media_type, digest=made.digest, size=made.size)
    try:
        applied = await work.snapshots.apply(descriptor, mounts)
        if applied != made.diff_id:
            raise HostError(f"layer {made.digest}: unpacks as {applied} instead of {made.diff_id}")
        await work.snapshots.commit(chain, key)
    except AlreadyExistsError:  # the very layers were committed before
        await work.snapshots.remove(key)
    except BaseException:
        with contextlib.suppress(QemuboxError):  # it goes with the lease
            await work.snapshots.remove(key)
        raise


async def _image(work: _Work, made: document.Layer, chain: str) -> api.Descriptor:
    content, wish, base = work.client.content, work.wish, work.base
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    told = document.Told(wish.author, wish.message, _command(work.container), now)
    config = document.encoded(document.new_config(base.config, work.settings, made, told))
    config_digest = await content.put(
        f"{work.ref}-config", config, document.config_labels(work.container.snapshotter, chain)
    )
    manifest = document.encoded(document.new_manifest(base.manifest, base.manifest_type, config, made))
    labels = document.manifest_labels(config_digest, (*base.layer_digests, made.digest))
    digest = await content.put(f"{work.ref}-manifest", manifest, labels)
    target = api.Descriptor(media_type=base.manifest_type, digest=digest, size=len(manifest))
    await work.client.put_image(wish.name, target)
    return target


def _command(container: api.Container) -> str:
    """What the container ran, for the image's history."""
    try:
        process = json.loads(container.spec.value).get("process") or {}
        return " ".join(str(word) for word in process.get("args") or [])
    except (ValueError, AttributeError, TypeError):
        return ""
