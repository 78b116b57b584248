"""A place for real plugins: their directories, a network over a bridge, and what of it is left on the host."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cni import Attachment, Cni, NetworkList, parse
from cni.document import Json, JsonValue
from tests.unit.cni.namespaces import ip, output

DEBIAN = Path("/usr/lib/cni")
_ROOT = Path(__file__).parents[3]
BRIDGE = "cnitest0"

CAPABILITIES: Mapping[str, JsonValue] = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "mac": "02:00:00:00:00:01",
    "bandwidth": {
        "ingressRate": 80_000_000,
        "ingressBurst": 80_000_000,
        "egressRate": 8_000_000,
        "egressBurst": 8_000_000,
    },
}


def newest() -> Path:
    """Where tests/parts.sh has the newest plugins and cnitool; it builds them where they are not there."""
    done = subprocess.run(
        ["sh", _ROOT / "tests" / "parts.sh", "plugins"], check=False, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


class Site:
    """Cache, leases and lock in a directory; plugins from another; everything else in the namespace of the thread."""

    def __init__(self, directory: Path, plugin_dir: Path) -> None:
        self.plugin_dir = plugin_dir
        self.extra_dir = directory / "bin"
        self.extra_dir.mkdir()
        self.cache_dir = directory / "cache"
        self.lock = directory / "cni.lock"
        self._leases = directory / "leases"

    def cni(self) -> Cni:
        """With the plugins, and those that a test puts into `extra_dir`."""
        return Cni(
            plugin_dirs=[self.plugin_dir, self.extra_dir], cache_dir=self.cache_dir, lock=self.lock, timeout_s=30
        )

    def bridge(self, *ranges: str, **more: JsonValue) -> Json:
        """The bridge plugin with host-local addresses of these ranges."""
        subnets: list[JsonValue] = [[{"subnet": subnet}] for subnet in ranges]
        routes: list[JsonValue] = [{"dst": "::/0" if ":" in subnet else "0.0.0.0/0"} for subnet in ranges]
        ipam: Json = {"type": "host-local", "dataDir": str(self._leases), "ranges": subnets, "routes": routes}
        conf: Json = {"type": "bridge", "bridge": BRIDGE, "isGateway": True, "ipMasq": True, "ipam": ipam}
        return conf | more

    def network(self, *plugins: Json, version: str = "1.0.0", name: str = "testnet") -> NetworkList:
        """A network of plugins."""
        return parse(
            json.dumps({"cniVersion": version, "name": name, "plugins": plugins}).encode(), "/net.d/test.conflist"
        )

    def chain(self, *more: Json, version: str = "1.0.0") -> NetworkList:
        """All that the default network of a host would have, and more, over IPv4 and IPv6."""
        return self.network(
            self.bridge("10.93.0.0/24", "fd93::/64"),
            {"type": "portmap", "capabilities": {"portMappings": True}},
            {"type": "firewall"},
            {"type": "tuning", "capabilities": {"mac": True}},
            {"type": "bandwidth", "capabilities": {"bandwidth": True}},
            *more,
            version=version,
        )

    def leases(self, name: str = "testnet") -> list[str]:
        """The addresses that host-local has given away."""
        directory = self._leases / name
        files = os.listdir(directory) if directory.exists() else []
        return sorted(file for file in files if not file.startswith(("last_reserved_ip", "lock")))

    def left(self) -> list[str]:
        """What is there for containers: leases, results, interfaces but lo and the bridge, rules with an address or id.

        The plugins keep bridges and the chains that belong to no container.
        """
        return [*self.leases(), *self.results(), *_links(), *_rules()]

    def results(self) -> list[str]:
        """The files of the cache."""
        directory = self.cache_dir / "results"
        return sorted(os.listdir(directory)) if directory.exists() else []


def attached(netns: str, container_id: str = "c1", capabilities: Mapping[str, JsonValue] = CAPABILITIES) -> Attachment:
    """A container in a namespace."""
    return Attachment(container_id, netns, "eth0", capabilities=capabilities)


def links(*words: str) -> list[Json]:
    """What ip(8) tells of the links of this namespace."""
    found: list[Json] = json.loads(ip("-json", "link", "show", *words))
    return found


def _links() -> list[str]:
    return [f"link {link['ifname']}" for link in links() if link["ifname"] not in ("lo", BRIDGE)]


def _rules() -> list[str]:
    """Rules and chains that name a container: an address of the test's networks, or a chain by a hash of its id."""
    saved = output("iptables-save") + output("ip6tables-save")
    return [line for line in saved.splitlines() if _is_of_a_container(line.split())]


def _is_of_a_container(words: Sequence[str]) -> bool:
    heads = ("10.93.", "fd93:", ":CNI-DN-", "CNI-DN-")
    return any(word.startswith(heads) or _is_hash(word) for word in words)


def _is_hash(word: str) -> bool:
    head, _, digits = word.lstrip(":").partition("-")
    return head == "CNI" and len(digits) == 24 and set(digits) <= set("0123456789abcdef")
