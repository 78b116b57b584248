"""A container's way into a network and out again, up to the moment at which its shim is killed: run as a program.

    setting_up.py DIRECTORY NETNS MOMENT

DIRECTORY is the container's; the network is that of the configuration. At MOMENT it kills itself; with an empty one it
goes all the way. Each moment is one after which the shim of a container could be killed, too.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from unittest import mock

from cni import Attachment, load
from cni.document import JsonValue
from shim.claim import claim
from shim.config import load as load_config
from shim.journal import Journal
from shim.network import attached
from shim.network.attached import Attached, Plugins
from shim.network.netns import make
from shim.network.survey import survey
from shim.network.tap import connect
from shim.reclaim import reclaim

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
        journal = Journal(directory)
        journal.record("netns", path=str(netns))
        fd = make(netns)
        self.reached("netns made")
        config = load_config()
        network = load(Path(config.network.conf_dir), config.network.name)
        capabilities: dict[str, JsonValue] = {
            "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}]
        }
        attachment = Attachment(netns.name, str(netns), "eth0", capabilities=capabilities)
        await attached.attach(directory, journal, Attached(network, attachment, Plugins.configured(config)))
        self.reached("attached")
        (interface,) = survey(fd).interfaces
        taps = connect(fd, interface, name="qb-eth0", queues=1)
        self.reached("TAP made")
        for tap in taps:
            os.close(tap)
        self.command, self.spawned = "DEL", 0
        await attached.detach(directory / attached.FILE_NAME)
        self.reached("detached")
        os.close(fd)
        os.close(lock)


def main() -> None:
    """Take the way that the command line asks for."""
    directory, netns, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    way = _Way(last)
    record = way.record

    def as_method(journal: Journal, kind: str, **facts: str | int) -> None:
        record(journal, kind, **facts)

    with mock.patch.object(Journal, "record", as_method):
        asyncio.run(way.take(directory, netns))
    if problems := reclaim(directory):
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
