"""What CNI's networks hold for containers of ours, by what is on the disk: for `qemubox gc`, when no journal tells.

Attachments are in the cache that the plugins' answers are kept in (cni.cache), from before the first plugin of an ADD
runs until the last one of its DEL has ended.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cni import CachedAttachment, NetworkList, NetworkNotFound, load
from shim.config import Config
from shim.network.attached import CONTAINER_ID_PREFIX, Attached, Plugins

# SPEC.md: the first version that has GC.
_GC_VERSION: Final = "1.1.0"


class Orphans:
    """Reads the cache anew each time, which blocks and raises CniError where that cannot be done."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._plugins = Plugins.configured(config)
        self._cni = self._plugins.runner()

    def keys(self) -> set[str]:
        """Those that have attachments."""
        return {_key(entry) for entry in self._ours()}

    def attachments(self, key: str) -> list[Attached]:
        """Those of one."""
        return [
            Attached(entry.network, entry.attachment, self._plugins) for entry in self._ours() if _key(entry) == key
        ]

    def _ours(self) -> list[CachedAttachment]:
        return [entry for entry in self._cni.cached() if _key(entry)]

    def networks(self) -> list[NetworkList]:
        """That of the configuration, and those that containers of ours were attached to; one of each name.

        Raises CniError for one that is broken.
        """
        found = {entry.network.name: entry.network for entry in self._ours()}
        if (configured := self._configured()) is not None:
            found[configured.name] = configured
        return [found[name] for name in sorted(found)]

    def collect(self) -> str:
        """Have the plugins of the configured network free what they hold for nobody that the cache knows (GC).

        The network's name; empty where there is none, or its version has no GC. Blocks. Raises CniError.
        """
        network = self._configured()
        if network is None or not network.at_least(_GC_VERSION) or network.disable_gc:
            return ""
        asyncio.run(self._cni.gc(network, self._attached_to(network)))
        return network.name

    def _configured(self) -> NetworkList | None:
        try:
            return load(Path(self._config.network.conf_dir), self._config.network.name)
        except NetworkNotFound:
            return None

    def _attached_to(self, network: NetworkList) -> Iterator[tuple[str, str]]:
        """Looked at when it is asked for: by `gc` when it has the lock, and no ADD is under way."""
        for entry in self._cni.cached():
            if entry.network.name == network.name:
                yield entry.attachment.container_id, entry.attachment.ifname


def _key(entry: CachedAttachment) -> str:
    """Of the container of ours that it is; empty where it is none."""
    container_id = entry.attachment.container_id
    return container_id.removeprefix(CONTAINER_ID_PREFIX) if container_id.startswith(CONTAINER_ID_PREFIX) else ""
