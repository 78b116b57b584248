"""The commands for the plugins of one network, one after the other, while the lock is held or need not be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cni import masquerade, namespace, plugin, standin
from cni.attachment import Attachment, CachedAttachment
from cni.cache import Cache
from cni.document import Json
from cni.errors import CniError, PluginError
from cni.network import NetworkList, Plugin
from cni.plugin import Call
from cni.result import Result

# "Container unknown": there is nothing to clean up (SPEC.md, "Error").
_UNKNOWN_CONTAINER = 3


class Chain:
    """Calls plugins. `inherited` are descriptors that each of them gets: the lock's, or none."""

    def __init__(
        self,
        *,
        plugin_dirs: Sequence[Path],
        cache: Cache,
        timeout_s: float,
        on_spawn: Callable[[int], None],
        inherited: Sequence[int] = (),
    ) -> None:
        self._plugin_dirs = plugin_dirs
        self._cache = cache
        self._timeout_s = timeout_s
        self._on_spawn = on_spawn
        self._inherited = inherited

    def require(self, network: NetworkList) -> None:
        """Raise PluginMissing if there is a program that an ADD would need and not find."""
        plugin.require(network, "ADD", self._plugin_dirs)

    async def add(self, network: NetworkList, item: Plugin, attachment: Attachment, previous: Result | None) -> Result:
        """ADD by one plugin; what there is after it. Raises PluginFailure."""
        call = self._attached("ADD", network, item, attachment, previous)
        return call.result(await self._run(call, self._on_spawn))

    async def check(self, network: NetworkList, item: Plugin, attachment: Attachment, made: Result) -> None:
        """CHECK by one plugin. Raises PluginFailure."""
        await self._run(self._attached("CHECK", network, item, attachment, made), self._on_spawn)

    async def delete(self, entry: CachedAttachment) -> None:
        """DEL by all plugins, backwards, and after one that fails by those before it, too.

        Once all have succeeded the cache forgets it. Raises the first error, as CniError.
        """
        network, result = entry.network, entry.result
        there = namespace.is_network_namespace(entry.attachment.netns)
        attachment = entry.attachment if there else replace(entry.attachment, netns="")
        first: CniError | None = None
        for item in reversed(network.plugins):
            try:
                if item.conf.get("ipMasq") is True:
                    await self._delete_masquerading(network, item, attachment, result)
                else:
                    await self._delete(network, item, attachment, result)
            except PluginError as error:
                if error.code != _UNKNOWN_CONTAINER:
                    first = first or error
            except CniError as error:
                first = first or error
        if first is not None:
            raise first
        self._cache.remove(network.name, attachment)

    async def _delete_masquerading(
        self, network: NetworkList, item: Plugin, attachment: Attachment, made: Result | None
    ) -> None:
        """DEL by a plugin that goes by what the interface's addresses are (standin.py, masquerade.py)."""
        name = attachment.ifname
        vanished = not namespace.has_interface(attachment.netns, name)
        if made is not None:
            addresses = [str(address.address) for address in made.ips]
        else:  # of an ADD that did not come to its end
            addresses = (
                [] if vanished else await masquerade.addresses(attachment.netns, name, timeout_s=self._timeout_s)
            )
        try:
            if not (vanished and addresses):
                await self._delete(network, item, attachment, made)
            else:
                await self._delete_with(addresses, network, item, attachment, made)
        except PluginError as error:
            if not masquerade.is_gone(error):
                raise
        else:
            return
        for address in addresses:
            try:
                await self._delete_with([address], network, item, attachment, made)
            except PluginError as error:
                if not masquerade.is_gone(error):
                    raise

    async def _delete_with(
        self, addresses: Sequence[str], network: NetworkList, item: Plugin, attachment: Attachment, made: Result | None
    ) -> None:
        """DEL by a plugin that is shown an interface with these addresses."""
        async with standin.shown(attachment.ifname, addresses, timeout_s=self._timeout_s) as netns:
            await self._delete(network, item, replace(attachment, netns=netns), made)

    async def _delete(self, network: NetworkList, item: Plugin, attachment: Attachment, made: Result | None) -> None:
        """DEL by one plugin, which is told what was made since 0.4.0."""
        told = made if network.at_least("0.4.0") else None
        await self._run(self._attached("DEL", network, item, attachment, told), self._on_spawn_if_possible)

    async def undo(self, entry: CachedAttachment) -> None:
        """`delete`, where there is another error to be told, or nothing lost: what is left stays in the cache."""
        try:
            await self.delete(entry)
        except CniError:
            return

    async def ask(self, command: str, network: NetworkList, item: Plugin, added: Json) -> None:
        """GC or STATUS by one plugin, with what is `added` to its configuration. Raises PluginFailure."""
        call = Call(network, item, command, None, plugin.network_request(network, item, added))
        await self._run(call, self._on_spawn)

    def _attached(
        self, command: str, network: NetworkList, item: Plugin, attachment: Attachment, previous: Result | None
    ) -> Call:
        request = plugin.request(network, item, previous=previous, capabilities=attachment.capabilities)
        return Call(network, item, command, attachment, request)

    async def _run(self, call: Call, on_spawn: Callable[[int], None]) -> bytes:
        return await call.run(
            self._plugin_dirs, timeout_s=self._timeout_s, inherited=self._inherited, on_spawn=on_spawn
        )

    def _on_spawn_if_possible(self, pid: int) -> None:
        """A journal on a file system that is full must keep nobody from cleaning up."""
        try:
            self._on_spawn(pid)
        except OSError:
            return
