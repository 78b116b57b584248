"""Runs the chains of plugins: what a container runtime does with a network. SPEC.md, section 3; libcni's api.go.

Where it differs from libcni, it is to leave nothing behind: the cache has an entry before the first plugin runs, a
failed ADD is followed by a DEL, DEL goes on after a plugin that fails, and chains of one host run one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from cni import lock as locks
from cni import namespace
from cni.attachment import Attachment, CachedAttachment
from cni.cache import Cache
from cni.chain import Chain
from cni.document import Json, JsonValue
from cni.errors import CacheError, CniError, UnsupportedError
from cni.names import check_args, check_container_id, check_interface_name
from cni.network import NetworkList
from cni.result import Result


def _nothing(_: int) -> None:
    pass


class Cni:
    """Plugins, a cache and a lock. Its methods may be called at the same time, and by several processes.

    `timeout_s` is for each plugin, and for the wait for the lock. `on_spawn` gets the pid, which is also the process
    group, of each plugin before that is told anything: until then it does nothing, and it ends if we are gone.
    """

    def __init__(
        self,
        *,
        plugin_dirs: Sequence[Path],
        cache_dir: Path,
        lock: Path,
        timeout_s: float,
        on_spawn: Callable[[int], None] = _nothing,
    ) -> None:
        self._plugin_dirs = tuple(path.absolute() for path in plugin_dirs)  # plugins are run in the root directory
        self._cache = Cache(cache_dir)
        self._lock = lock
        self._timeout_s = timeout_s
        self._on_spawn = on_spawn

    def require(self, network: NetworkList) -> None:
        """Raise PluginMissing if there is a program that `add` would need and not find; it does so first of all."""
        self._chain().require(network)

    async def add(self, network: NetworkList, attachment: Attachment) -> Result:
        """Attach a container: ADD by each plugin in turn; what there is after the last one.

        Where the cache has an attachment of this network, container and interface, that is undone first. When a
        plugin fails, or the caller is cancelled, what was made is undone, and the first error told; what cannot be
        undone stays in the cache. Raises CniError.
        """
        _check(attachment)
        namespace.check(attachment.netns)
        self.require(network)
        made: Result | None = None
        async with self._locked("ADD", network, attachment) as chain:
            stale = self._cache.read(network.name, attachment)
            if stale is not None:
                await chain.undo(stale)
            try:
                await self._keep(CachedAttachment(network, attachment, None))
                for item in network.plugins:
                    made = await chain.add(network, item, attachment, made)
                    await self._keep(CachedAttachment(network, attachment, made))
            except BaseException:
                await chain.undo(CachedAttachment(network, attachment, made))
                raise
        return made or Result()

    async def check(self, network: NetworkList, attachment: Attachment) -> None:
        """CHECK by each plugin that a container is attached as ADD has left it. Raises the first error, as CniError.

        Does nothing where the network has `disableCheck`; UnsupportedError for versions before 0.4.0, which had none.
        """
        _check(attachment)
        if not network.at_least("0.4.0"):
            raise UnsupportedError(
                f"the network {network.name!r} ({network.source}) has cniVersion {network.cni_version}: "
                "CHECK came with 0.4.0"
            )
        if network.disable_check:
            return
        cached = self._cache.read(network.name, attachment)
        if cached is None or cached.result is None:
            raise CacheError(f"no ADD of {attachment.described} to the network {network.name!r} is known")
        given = _as_added(attachment, cached)
        for item in network.plugins:
            await self._chain().check(network, item, given, cached.result)

    async def delete(self, network: NetworkList, attachment: Attachment) -> None:
        """Detach a container: DEL by each plugin, backwards, whatever those before it did.

        A namespace that is gone, or is none, is not named to the plugins: they free what is outside of it. Arguments
        and capabilities that `attachment` does not have are those of the ADD. Raises the first error, as CniError;
        then the cache still knows of the attachment. Detaching what is not attached is no error.
        """
        _check(attachment)
        if namespace.is_own(attachment.netns):
            namespace.check(attachment.netns)
        async with self._locked("DEL", network, attachment) as chain:
            cached = self._cache.read(network.name, attachment)
            if cached is None:
                await chain.delete(CachedAttachment(network, attachment, None))
            else:
                await chain.delete(CachedAttachment(network, _as_added(attachment, cached), cached.result))

    async def gc(self, network: NetworkList, valid: Iterable[tuple[str, str]]) -> None:
        """Free all that a network holds for others than the `valid` pairs of container id and interface name.

        `valid` is asked when the lock is had, so that what it makes of `cached` then is true until the end.
        DEL for each that the cache knows of this network, whoever made it; then GC by each plugin, since 1.1.0.
        Does nothing where the network has `disableGC`. Goes on after errors, and raises the first with the others
        as its notes.
        """
        if network.disable_gc:
            return
        errors: list[CniError] = []
        async with self._locked("GC", network, None) as chain:
            kept = sorted(set(valid))
            for entry in self._cache.entries():
                pair = (entry.attachment.container_id, entry.attachment.ifname)
                if entry.network.name == network.name and pair not in kept:
                    await _collect(errors, chain.delete(_long_gone(entry)))
            if network.at_least("1.1.0"):
                listed: list[JsonValue] = [{"containerID": container, "ifname": ifname} for container, ifname in kept]
                # The second name is that of the specification before it was corrected (containernetworking/cni#1101).
                added: Json = {"cni.dev/valid-attachments": listed, "cni.dev/attachments": listed}
                for item in network.plugins:
                    await _collect(errors, chain.ask("GC", network, item, added))
        if errors:
            for other in errors[1:]:
                errors[0].add_note(str(other))
            raise errors[0]

    async def status(self, network: NetworkList) -> None:
        """STATUS by each plugin: whether it could do an ADD now. Raises the first error, as CniError.

        Does nothing for networks of a version before 1.1.0, which had none.
        """
        if network.at_least("1.1.0"):
            for item in network.plugins:
                await self._chain().ask("STATUS", network, item, {})

    def cached(self) -> list[CachedAttachment]:
        """All attachments that the cache knows, of every network and runtime that keeps its own here. Blocks."""
        return self._cache.entries()

    @asynccontextmanager
    async def _locked(self, command: str, network: NetworkList, attachment: Attachment | None) -> AsyncIterator[Chain]:
        note = f"{command} of network {network.name!r}" + (f", {attachment.described}" if attachment else "")
        async with locks.held(self._lock, timeout_s=self._timeout_s, note=note) as fd:
            yield self._chain(fd)

    def _chain(self, *inherited: int) -> Chain:
        return Chain(
            plugin_dirs=self._plugin_dirs,
            cache=self._cache,
            timeout_s=self._timeout_s,
            on_spawn=self._on_spawn,
            inherited=inherited,
        )

    async def _keep(self, entry: CachedAttachment) -> None:
        """Write it in a thread: the disk may take its time. Not left before it is done, or it would undo a removal."""
        written = asyncio.get_running_loop().run_in_executor(None, self._cache.write, entry)
        try:
            await asyncio.shield(written)
        except asyncio.CancelledError:
            await asyncio.wait([written])
            raise


def _check(attachment: Attachment) -> None:
    check_container_id(attachment.container_id)
    check_interface_name(attachment.ifname)
    check_args(attachment.args)


def _as_added(attachment: Attachment, cached: CachedAttachment) -> Attachment:
    """With what its ADD was given, where it says nothing of that itself."""
    return replace(
        attachment,
        args=attachment.args or cached.attachment.args,
        capabilities=attachment.capabilities or cached.attachment.capabilities,
    )


def _long_gone(entry: CachedAttachment) -> CachedAttachment:
    """A namespace that was named by a process may be another's by now, even the host's, which has an eth0, too."""
    if entry.attachment.netns.startswith("/proc/") or namespace.is_own(entry.attachment.netns):
        return replace(entry, attachment=replace(entry.attachment, netns=""))
    return entry


async def _collect(errors: list[CniError], work: Awaitable[None]) -> None:
    try:
        await work
    except CniError as error:
        errors.append(error)
