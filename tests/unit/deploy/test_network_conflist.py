"""The network that is installed: real plugins make it, and what people have written stays. Needs root."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni import load
from tests.unit.shim.network.cell import PLUGIN_DIR, Cell, cell

_ROOT = Path(__file__).parents[3]
_SCRIPT = _ROOT / "deploy/network.sh"
_CONFLIST = _ROOT / "deploy/net.d/qemubox.conflist"


class _Site:
    """A host, and what the script says on it."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.directory = cell.path / "etc" / "net.d"
        self.sum = cell.path / "share" / "network.sha256"
        self.file = self.directory / "qemubox.conflist"

    def run(self, action: str) -> list[str]:
        """Each line that it prints."""
        return self.cell.tell("sh", _SCRIPT, action, self.directory, self.sum).splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[_Site]:
    with cell(tmp_path) as made:
        yield _Site(made)


def test_it_is_what_is_in_the_repository(site: _Site) -> None:
    assert site.run("install") == []
    assert site.file.read_bytes() == _CONFLIST.read_bytes()
    assert site.file.stat().st_mode & 0o777 == 0o644
    network = load(site.directory, "qemubox")
    assert (network.cni_version, *network.capabilities) == ("1.0.0", "portMappings")
    assert [plugin.type for plugin in network.plugins if not Path(PLUGIN_DIR, plugin.type).exists()] == []


@pytest.mark.parametrize("name", ["all", "default"])
def test_without_ipv6_its_range_is_left_out_and_that_is_said(site: _Site, name: str) -> None:
    site.cell.tell("sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    (line,) = site.run("install")
    assert line.startswith("network: containers get no IPv6 addresses: it is switched off on this host")
    whole, installed = json.loads(_CONFLIST.read_text()), json.loads(site.file.read_text())
    ipam = whole["plugins"][0]["ipam"]
    ipam["ranges"], ipam["routes"] = ipam["ranges"][:1], ipam["routes"][:1]
    assert installed == whole
    assert site.run("install") == []


def test_a_file_of_ours_is_replaced_and_a_changed_one_is_kept(site: _Site) -> None:
    site.run("install")
    site.cell.tell("sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
    assert len(site.run("install")) == 1
    assert "::" not in site.file.read_text()
    site.file.write_text(_CONFLIST.read_text().replace("10.86.0.0", "10.87.0.0"))
    (line,) = site.run("install")
    assert line.startswith(f"network: {site.file} was changed and stays as it is")
    assert site.run("uninstall") == [f"network: {site.file} was changed and stays"]
    assert "10.87.0.0" in site.file.read_text()


def test_a_file_that_was_there_before_us_is_kept(site: _Site) -> None:
    site.directory.mkdir(parents=True)
    site.file.write_text("mine")
    assert len(site.run("install")) == 1
    site.run("uninstall")
    assert site.file.read_text() == "mine"


def test_no_second_network_of_the_name_beside_one_of_the_user_s(site: _Site) -> None:
    site.directory.mkdir(parents=True)
    mine = site.directory / "10-mine.conflist"
    mine.write_text(_CONFLIST.read_text())
    assert site.run("install") == [f"network: {mine} has the network qemubox: that is the containers' one"]
    assert not site.file.exists()
    mine.write_text(_CONFLIST.read_text().replace('"qemubox"', '"another"'))
    assert site.run("install") == []
    assert site.file.exists()


def test_nothing_of_ours_is_left_after_the_uninstallation(site: _Site) -> None:
    site.run("install")
    assert site.run("uninstall") == []
    assert not site.directory.exists()
    assert list(site.sum.parent.iterdir()) == []
    assert site.run("uninstall") == []


@pytest.mark.parametrize("route", ["10.0.0.0/8", "10.86.3.0/24"])
def test_a_route_of_the_host_s_into_it_is_told(site: _Site, route: str) -> None:
    site.cell.tell("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    site.cell.tell("ip", "link", "set", "v0", "up")
    site.cell.tell("ip", "route", "add", "default", "dev", "v0")
    site.cell.tell("ip", "route", "add", route, "dev", "v0")
    (line,) = site.run("install")
    assert line.startswith(f"network: this host has a route into the containers' network 10.86.0.0/16 ({route} dev v0")


def test_real_plugins_make_it_for_both_families_and_take_all_of_it_back(site: _Site) -> None:
    site.run("install")
    netns = "/run/netns/c1"
    site.cell.tell("sh", "-c", f"touch {netns}; unshare --net={netns} true")
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom cni import Attachment, Cni, load\n"
        "dirs, cache, lock = [Path(sys.argv[2])], Path('/var/lib/cni'), Path('/run/cni.lock')\n"
        "runner = Cni(plugin_dirs=dirs, cache_dir=cache, lock=lock, timeout_s=30)\n"
        "words = load(Path(sys.argv[1]), 'qemubox'), Attachment('qemubox-1', sys.argv[3], 'eth0')\n"
        "print(asyncio.run(getattr(runner, sys.argv[4])(*words)))\n"
    )
    words = (sys.executable, "-c", program, site.directory, PLUGIN_DIR, netns)
    site.cell.tell(*words, "add")
    addresses = site.cell.tell("nsenter", f"--net={netns}", "ip", "-o", "addr", "show", "eth0")
    assert "inet 10.86.0.2/16" in addresses
    assert "inet6 fd71:656d:7562:6f78::2/64" in addresses
    for there, gateway in (("192.0.2.1", "10.86.0.1"), ("2001:db8::1", "fd71:656d:7562:6f78::1")):
        assert f"via {gateway} dev eth0" in site.cell.tell("nsenter", f"--net={netns}", "ip", "route", "get", there)
    site.cell.tell(*words, "delete")
    leases = site.cell.tell("ls", "/var/lib/cni/networks/qemubox").split()
    assert sorted(leases) == ["last_reserved_ip.0", "last_reserved_ip.1", "lock"]
    assert "qemubox-1" not in site.cell.tell("sh", "-c", "iptables-save; ip6tables-save")
    assert "10.86.0.2" not in site.cell.tell("iptables-save")
