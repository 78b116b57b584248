"""A container's way into a network and out again, up to the moment at which its shim is killed: run as a program.

    setting_up.py DIRECTORY NETNS MOMENT

DIRECTORY is the container's; the network is that of the configuration. At MOMENT it kills itself; with an empty one it
goes all the way, which is that of Create and Delete (shim/network/network.py). Each moment is one after which the shim
of a container could be killed, too.
"""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final, cast
from unittest import mock

import structlog

from cni import Result
from cni.document import JsonValue
from shim.claim import claim
from shim.config import load as load_config
from shim.identity import Identity
from shim.journal import Journal
from shim.log import Logger
from shim.network import network, tap
from shim.network.attached import Attached, attach, detach
from shim.network.netns import PREFIX
from shim.network.plan import Plan, Way
from shim.network.survey import Interface
from shim.network.tap import connect
from shim.reclaim import reclaim

_CAPABILITIES: Final[dict[str, JsonValue]] = {
    "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]
}
PLUGINS = ("bridge", "portmap", "firewall", "tuning")
_SPAWNS = [
    f"{command} {plugin} {when}" for command in ("ADD", "DEL") for plugin in PLUGINS for when in ("runs", "told")
]
MOMENTS = (
    *("netns recorded", "netns made", "attachment recorded"),
    *_SPAWNS[:8],
    *("attached", "TAP made"),
    *_SPAWNS[8:],
    "detached",
)


class _Identity(Identity):
    """Of a container with that key."""

    def __init__(self, key: str) -> None:
        super().__init__("/run/containerd/containerd.sock", "default", key)

    @property
    def key(self) -> str:
        return self.container_id


class _Way:
    """Counts plugins, and ends us."""

    def __init__(self, last: str) -> None:
        self.command = "ADD"
        self.spawned = 0
        self._last = last
        self._record = Journal.record

    def reached(self, moment: str) -> None:
        """Go no further if this was the last."""
        assert moment in MOMENTS
        if moment == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def record(self, journal: Journal, kind: str, **facts: str | int) -> None:
        """In the journal's place: there are moments just before and after it knows of a plugin."""
        if kind != "child":
            self._record(journal, kind, **facts)
            self.reached({"netns": "netns recorded", "cni": "attachment recorded"}[kind])
            return
        plugins = PLUGINS if self.command == "ADD" else PLUGINS[::-1]
        plugin = plugins[self.spawned % len(plugins)]
        self.spawned += 1
        self.reached(f"{self.command} {plugin} runs")
        self._record(journal, kind, **facts)
        self.reached(f"{self.command} {plugin} told")

    async def take(self, directory: Path, netns: Path) -> None:
        """All of it."""
        directory.mkdir(parents=True)
        lock = claim(directory, deadline_s=0)
        config = load_config()
        made = network.ContainerNetwork(
            Plan(Way.CONFIGURED, name=config.network.name),
            _Identity(netns.name.removeprefix(PREFIX)),
            directory,
            hostname="c",
            config=config,
            journal=Journal(directory),
            log=cast("Logger", structlog.get_logger()),
        )
        await made.open()
        self.reached("netns made")
        await made.connect(1)
        made.settled()
        self.command, self.spawned = "DEL", 0
        await made.close()
        os.close(lock)

    async def attach(self, directory: Path, journal: Journal, attached: Attached) -> Result:
        """In its place: it is done, and we may go no further."""
        attachment = replace(attached.attachment, capabilities=_CAPABILITIES)
        result = await attach(directory, journal, replace(attached, attachment=attachment))
        self.reached("attached")
        return result

    def connect(self, fd: int, interface: Interface, *, name: str, queues: int) -> list[int]:
        """The same of a TAP."""
        taps = connect(fd, interface, name=name, queues=queues)
        self.reached("TAP made")
        return taps

    async def detach(self, path: Path) -> None:
        """The same of the end."""
        await detach(path)
        self.reached("detached")


def main() -> None:
    """Take the way that the command line asks for."""
    directory, netns, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    way = _Way(last)
    record = way.record

    def as_method(journal: Journal, kind: str, **facts: str | int) -> None:
        record(journal, kind, **facts)

    with (
        mock.patch.object(Journal, "record", as_method),
        mock.patch.object(network, "attach", way.attach),
        mock.patch.object(network, "detach", way.detach),
        mock.patch.object(tap, "connect", way.connect),
    ):
        asyncio.run(way.take(directory, netns))
    if problems := reclaim(directory):
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
