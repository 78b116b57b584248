"""A place with a network, mounts and CNI plugins' files of its own: what tests do with real plugins stays in it.

A process holds a network and a mount namespace with an empty /run, where network namespaces and iptables' lock are, and
an empty /var/lib, where CNI keeps things by default. It ends with the test, and everything in it goes with it.
"""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

Json = dict[str, object]

PLUGIN_DIR: Final = "/usr/lib/cni"
_HOLD: Final = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir /run/netns
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo
read -r _
"""


class Cell:
    """`path` is a directory for files: the cache of results, leases, configurations."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.pid = pid
        self.cache_dir = path / "cni-cache"
        self.leases = path / "leases"
        self.conf_dir = path / "net.d"
        self.plugin_dir = path / "plugins"
        self.conf_dir.mkdir()
        self.plugin_dir.mkdir()

    @property
    def config(self) -> str:
        """The section of the shim's configuration for this place."""
        return (
            f'[network]\nname = "net"\nconf_dir = "{self.conf_dir}"\ncache_dir = "{self.cache_dir}"\n'
            f'plugin_dirs = ["{self.plugin_dir}", "{PLUGIN_DIR}"]\ntimeout_s = 20\n'
        )

    def inside(self, *words: str | Path) -> list[str]:
        """A command as one that runs in the cell."""
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--", *map(str, words)]

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the cell to its end."""
        return subprocess.run(
            self.inside(*words), check=False, capture_output=True, text=True, errors="replace", timeout=50, env=env
        )

    def tell(self, *words: str | Path) -> str:
        """What a command says that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def plugin(self, name: str, script: str) -> None:
        """A plugin of the test's own: a shell script, which is found before a real one."""
        path = self.plugin_dir / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def traces(self) -> list[str]:
        """Everything in here that a container may have left; the bridge, and chains without rules, are nobody's."""
        links = [f"link {line.split()[1]}" for line in self.tell("ip", "-o", "link").splitlines()]
        netns = [f"netns {name}" for name in self.tell("ls", "/run/netns").split()]
        mounts = [
            f"mount {line}" for line in self.tell("findmnt", "-rno", "TARGET").split() if "netns/qemubox-" in line
        ]
        leases = [f"lease {path.name}" for path in self.leases.glob("*/*") if path.name[0] in "0123456789f"]
        cached = [f"cached {path.name}" for path in self.cache_dir.rglob("*") if path.is_file()]
        rules = [
            f"{program} {line}"
            for program in ("iptables-save", "ip6tables-save")
            for line in self.tell(program).splitlines()
            if line.startswith("-A")
        ]
        return sorted([*links, *netns, *mounts, *leases, *cached, *rules])


@contextmanager
def cell(path: Path) -> Iterator[Cell]:
    """A cell, gone at the end with whatever is in it."""
    words = ["unshare", "--net", "--mount", "--propagation", "slave", "sh", "-c", _HOLD]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "\n"
            yield Cell(path, child.pid)
        finally:
            child.kill()


def conflist(leases: Path, *further: Json, version: str = "1.0.0", subnet: str = "10.99.0.0/24") -> Json:
    """A bridge network as the one that is installed, with further plugins in the middle of the chain."""
    ipam: Json = {"type": "host-local", "dataDir": str(leases), "ranges": [[{"subnet": subnet}]]}
    ipam["routes"] = [{"dst": "0.0.0.0/0"}]
    return {
        "cniVersion": version,
        "name": "net",
        "plugins": [
            {"type": "bridge", "bridge": "qb0", "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
            *further,
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "tuning"},
        ],
    }
