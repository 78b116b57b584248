"""A container's attachment to a CNI network, written down before it is made: all that DEL needs.

It is a file of JSON in the container's directory, in the journal as `cni`. Create writes it before ADD; whoever takes
the attachment back (a failed Create, Delete, or `delete` after a crash) runs DEL by what the file says and then removes
it. So DEL runs with the network that ADD ran with, whatever has become of the configuration since, and runs again where
it failed. A file that a kill has cut short was not followed by an ADD.
"""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cni import Attachment, Cni, CniError, NetworkList, Result, parse
from shim.config import Config
from shim.journal import Journal
from shim.reclaim import record_child

FILE_NAME: Final = "cni.json"
# CNI knows containers by this and their key.
CONTAINER_ID_PREFIX: Final = "qemubox-"
# In the runtime directory: all shims of a host wait for each other there.
_LOCK_NAME: Final = "cni.lock"


@dataclass(frozen=True, slots=True)
class Plugins:
    """Where plugins are, and how they are run: the words of `cni.Cni`."""

    dirs: tuple[str, ...]
    cache_dir: str
    lock: str
    timeout_s: float

    @classmethod
    def configured(cls, config: Config) -> "Plugins":
        """As the configuration has it."""
        network = config.network
        lock = os.path.join(config.runtime.state_dir, _LOCK_NAME)
        return cls(network.plugin_dirs, network.cache_dir, lock, network.timeout_s)

    def runner(self, on_spawn: Callable[[int], None] = lambda _: None) -> Cni:
        """What runs them. `on_spawn` gets the pid of each before it does anything."""
        return Cni(
            plugin_dirs=[Path(path) for path in self.dirs],
            cache_dir=Path(self.cache_dir),
            lock=Path(self.lock),
            timeout_s=self.timeout_s,
            on_spawn=on_spawn,
        )


@dataclass(frozen=True, slots=True)
class Attached:
    """An attachment, to which network, and by which plugins."""

    network: NetworkList
    attachment: Attachment
    plugins: Plugins


async def attach(directory: Path, journal: Journal, attached: Attached) -> Result:
    """Write it down in `directory` and run ADD; what the plugins have made. Raises OSError or CniError.

    Whether that fails or not, `detach` of `directory` / FILE_NAME is to be called in the end. Where a program is
    missing nothing is begun, nor written down: DEL would need the same.
    """
    runner = attached.plugins.runner(_recorder(journal))
    await asyncio.to_thread(runner.require, attached.network)
    await asyncio.to_thread(leave, directory, journal, attached)
    return await runner.add(attached.network, attached.attachment)


async def detach(path: Path) -> None:
    """Run DEL for what `path` has, if it has anything, and remove it. Raises OSError or CniError; then it stays."""
    attached = await asyncio.to_thread(read, path)
    if attached is not None:
        runner = attached.plugins.runner(_recorder(Journal(path.parent)))
        await runner.delete(attached.network, attached.attachment)
    path.unlink(missing_ok=True)


def undo(path: Path, limit_s: float | None = None) -> None:
    """`detach`, within `limit_s` seconds, on a thread that has no event loop. Blocks. Raises OSError."""

    async def run() -> None:
        async with asyncio.timeout(limit_s) as limit:
            try:
                await detach(path)
            except asyncio.CancelledError:
                if limit.expired():
                    raise TimeoutError(errno.ETIMEDOUT, f"DEL did not end within {limit_s:g} s") from None
                raise

    try:
        asyncio.run(run())
    except CniError as error:
        raise OSError(errno.EIO, str(error)) from error


def leave(directory: Path, journal: Journal, attached: Attached, *, name: str = FILE_NAME) -> Path:
    """Write it down in `directory`, journaled; the file. Only then may plugins run. Raises OSError."""
    path = directory / name
    journal.record("cni", path=str(path))
    facts: dict[str, object] = {
        "network": attached.network.raw.decode(),
        "source": attached.network.source,
        "attachment": asdict(attached.attachment),
        "plugins": asdict(attached.plugins),
    }
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        json.dump(facts, file)
    return path


def read(path: Path) -> Attached | None:
    """What was written; None where there is nothing to undo. Raises OSError, CniError for a network that is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(text)
    except ValueError:  # a kill came between: no plugin had run yet
        return None
    attachment, plugins = facts["attachment"], facts["plugins"]
    return Attached(
        parse(facts["network"].encode(), facts["source"]),
        Attachment(**attachment | {"args": tuple((key, value) for key, value in attachment["args"])}),
        Plugins(**plugins | {"dirs": tuple(plugins["dirs"])}),
    )


def _recorder(journal: Journal) -> Callable[[int], None]:
    """Writes a plugin down as a child. Raises OSError, which keeps an ADD from going on, and not a DEL."""
    return lambda pid: record_child(journal, pid)
