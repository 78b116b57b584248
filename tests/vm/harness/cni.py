"""CNI networks for the tests: what their files say, put where the shim under test looks for them, and their leases.

Each network is of numbers of its own: bridge, ranges of addresses and name are never another's. Ranges are of networks
that exist in the cell alone.
"""

import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from harness.box import Box
from harness.cell import Cell
from harness.containerd import ADDRESS
from shim.identity import Identity

Plugin = Mapping[str, object]

LEASES: Final = "/var/lib/cni/networks"
"""Where host-local keeps one file for each address that is taken, in the cell."""

_DEADLINE_S: Final = 20.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Net:
    """A network. `link` is the host's link that it is on, `ip4` and `ip6` the gateways' addresses there, if any."""

    name: str
    plugins: tuple[Plugin, ...]
    link: str = ""
    ip4: str = ""
    ip6: str = ""
    version: str = "1.0.0"

    @property
    def options(self) -> tuple[str, str]:
        """For a container of qemubox that is to have it: words of `ctr run`."""
        return ("--annotation", f"io.qemubox.network.name={self.name}")

    @property
    def conflist(self) -> str:
        """Its file."""
        return json.dumps({"cniVersion": self.version, "name": self.name, "plugins": self.plugins}, indent=1)

    def chained(self, *plugins: Plugin) -> "Net":
        """With further plugins behind its own."""
        return replace(self, plugins=(*self.plugins, *plugins))

    def leases(self, cell: Cell) -> dict[str, str]:
        """Which addresses are taken, and by whom: CNI's id of the container, which host-local writes first."""
        directory = cell.path(f"{LEASES}/{self.name}")
        paths = [path for path in directory.glob("*") if path.name[0].isdigit() or ":" in path.name]
        return {path.name: path.read_text().split()[0] for path in paths}


def bridge(*, mtu: int = 0, addresses: int = 200, ip6: bool = True) -> Net:
    """A bridge with a gateway and default routes, IPv4 and IPv6, and so many addresses to give."""
    number = next(_numbers)
    name = f"bridge{number}"
    plugin: dict[str, object] = {
        "type": "bridge",
        "bridge": f"qbr{number}",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": _ranges(number, addresses, ip6=ip6),
    }
    if mtu:
        plugin["mtu"] = mtu
    return Net(name, (plugin,), f"qbr{number}", f"10.89.{number}.1", f"fd89:{number}::1" if ip6 else "")


def ptp() -> Net:
    """A pair of links for each container; the host's end has a route to it."""
    number = next(_numbers)
    plugin = {"type": "ptp", "ipMasq": False, "ipam": _ranges(number, 200, ip6=True)}
    return Net(f"ptp{number}", (plugin,), "", f"10.89.{number}.1", f"fd89:{number}::1")


def macvlan(parent: str) -> Net:
    """Further addresses of a link of the cell's, which does not hear them itself (macvlan, mode bridge)."""
    number = next(_numbers)
    plugin = {"type": "macvlan", "master": parent, "mode": "bridge", "ipam": _ranges(number, 200, ip6=True)}
    return Net(f"macvlan{number}", (plugin,))


def static(net: Net, *addresses: str) -> Net:
    """The same network, with addresses that are asked for, "address/prefix", and no range."""
    (plugin,) = net.plugins
    given = [{"address": address, "gateway": net.ip6 if ":" in address else net.ip4} for address in addresses]
    ipam = {"type": "static", "addresses": given, "routes": [{"dst": "0.0.0.0/0"}]}
    return replace(net, name=f"{net.name}-static", plugins=({**plugin, "ipam": ipam},))


PORTMAP: Final[Plugin] = {"type": "portmap", "capabilities": {"portMappings": True}}
FIREWALL: Final[Plugin] = {"type": "firewall"}
BANDWIDTH: Final[Plugin] = {
    "type": "bandwidth",
    "ingressRate": 80_000_000,
    "ingressBurst": 8_000_000,
    "egressRate": 80_000_000,
    "egressBurst": 8_000_000,
}
TUNING: Final[Plugin] = {
    "type": "tuning",
    "sysctl": {"net.core.somaxconn": "511"},
    "capabilities": {"mac": True},
}


@contextmanager
def configured(box: Box, *nets: Net) -> Iterator[None]:
    """The networks' files are there for a while. Their bridges go at the end."""
    conf_dir = box.qemubox.conf_dir
    paths = [conf_dir / f"{net.name}.conflist" for net in nets]
    for net, path in zip(nets, paths, strict=True):
        path.write_text(net.conflist)
    try:
        yield
    finally:
        for path in paths:
            path.unlink()
        for link in {net.link for net in nets if net.link}:
            remove_link(box.containerd.cell, link)


@contextmanager
def file(box: Box, name: str, text: str) -> Iterator[Path]:
    """A file of any content among the networks' for a while."""
    path = box.qemubox.conf_dir / name
    path.write_text(text)
    try:
        yield path
    finally:
        path.unlink()


def cni_id(container: str, namespace: str = "default") -> str:
    """What CNI calls a container of qemubox that has the network of the configuration."""
    return f"qemubox-{Identity(ADDRESS, namespace, container).key}"


def addresses(box: Box, net: Net, cni_container: str) -> tuple[str, str]:
    """The container's IPv4 and IPv6 addresses there, by its leases; empty where there is none."""
    found = [address for address, owner in net.leases(box.containerd.cell).items() if owner == cni_container]
    ip4, ip6 = ([address for address in found if (":" in address) is wanted] for wanted in (False, True))
    return (ip4 or [""])[0], (ip6 or [""])[0]


def remove_link(cell: Cell, link: str) -> None:
    """Remove a link of the cell's, if it is there."""
    if link in [path.name for path in cell.path("/sys/class/net").iterdir()]:
        run(cell, "ip", "link", "del", link)


def run(cell: Cell, *command: str) -> str:
    """What a program that runs in the cell prints; it must succeed."""
    done = subprocess.run(cell.inside(command), check=False, capture_output=True, text=True, timeout=_DEADLINE_S)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def _ranges(number: int, count: int, *, ip6: bool) -> Plugin:
    """host-local's ranges: the first address after the gateway's is the first to be given."""
    last = 1 + count
    ranges: list[Sequence[Plugin]] = [
        [{"subnet": f"10.89.{number}.0/24", "rangeStart": f"10.89.{number}.2", "rangeEnd": f"10.89.{number}.{last}"}]
    ]
    routes = [{"dst": "0.0.0.0/0"}]
    if ip6:
        subnet = f"fd89:{number}::"
        ranges.append([{"subnet": f"{subnet}/64", "rangeStart": f"{subnet}2", "rangeEnd": f"{subnet}{last:x}"}])
        routes.append({"dst": "::/0"})
    return {"type": "host-local", "dataDir": LEASES, "ranges": ranges, "routes": routes}
