"""The CNI network: its file, its plugins by scripts in their places, and who else has its addresses."""

import ipaddress
import json
from pathlib import Path

import pytest

from cni import parse
from shim.check import networks, subnets
from shim.check.subnets import Route
from tests.unit.shim.check.conftest import FakeHost, Say

_ROOT = Path(__file__).parents[4]
_SHIPPED = (_ROOT / "deploy/net.d/qemubox.conflist").read_text()
_PLUGINS = ("bridge", "host-local", "portmap", "firewall", "tuning")
# What a plugin of containernetworking answers to VERSION; that it was asked for that, and with JSON.
_VERSION = (
    '[ "$CNI_COMMAND" = VERSION ] || exit 9\nread -r line\ncase $line in *cniVersion*) ;; *) exit 8 ;; esac\n'
    'echo \'{"cniVersion":"1.0.0","supportedVersions":["0.3.1","0.4.0","1.0.0"]}\''
)


@pytest.fixture(autouse=True)
def no_routes(monkeypatch: pytest.MonkeyPatch) -> list[Route]:
    """The host's routes, which a test may add to."""
    found: list[Route] = []
    monkeypatch.setattr(subnets, "routes", lambda: found)
    return found


@pytest.fixture
def installed(fake: FakeHost) -> FakeHost:
    """As install.sh leaves it."""
    fake.put("/etc/qemubox/net.d/qemubox.conflist", _SHIPPED)
    for name in _PLUGINS:
        fake.program(name, _VERSION, fake.root / "opt/cni/bin")
    for name in ("iptables", "ip6tables"):
        fake.program(name, '[ "$*" = "-w 5 -t nat -S" ]')
    return fake


@pytest.mark.usefixtures("installed")
async def test_as_installed(say: Say) -> None:
    said = await say(networks.look)
    assert {line.level for line in said} == {"ok"}
    assert {line.what for line in said} == {
        "network 'qemubox'",
        *(f"plugin {name}" for name in _PLUGINS),
        "iptables",
        "ip6tables",
    }
    assert said.of("plugin host-local").found.endswith("/opt/cni/bin/host-local, CNI up to 1.0.0")
    assert said[-1].found == "nobody else has 10.86.0.0/16, fd71:656d:7562:6f78::/64"


async def test_none_that_is_wanted(fake: FakeHost, say: Say) -> None:
    fake.configure("network", name="none")
    assert [line.level for line in await say(networks.look)] == ["ok"]


async def test_none_that_is_not(say: Say) -> None:
    (line,) = await say(networks.look)
    assert line.level == "failure"
    assert "no network 'qemubox' is configured in" in line.found
    assert line.mend


async def test_a_plugin_that_is_missing(installed: FakeHost, say: Say) -> None:
    (installed.root / "opt/cni/bin/host-local").unlink()
    found = (await say(networks.look)).told("plugin host-local")
    assert found[0] == "failure"
    assert "is not in" in found[1]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("""echo '{"supportedVersions":["0.1.0","0.2.0"]}'""", "speaks CNI 0.1.0, 0.2.0, and"),
        ("echo '{}'", "of no version"),
        ("echo oops", "does not tell its versions"),
        ("exit 1", "does not tell its versions"),
    ],
)
async def test_a_plugin_of_other_versions(script: str, words: str, installed: FakeHost, say: Say) -> None:
    installed.program("firewall", script, installed.root / "opt/cni/bin")
    found = (await say(networks.look)).told("plugin firewall")
    assert found[0] == "failure"
    assert words in found[1]


async def test_iptables_that_does_not_work(installed: FakeHost, say: Say) -> None:
    installed.program("ip6tables", "echo 'ip6tables: no table nat' >&2; exit 3")
    (installed.bin / "iptables").unlink()
    said = await say(networks.look)
    assert next(line for line in said if line.what == "iptables").mend == "apt-get install iptables"
    assert said.told("ip6tables")[0] == "failure"
    assert "ip6tables: no table nat" in said.told("ip6tables")[1]


async def test_one_that_calls_no_iptables(installed: FakeHost, say: Say) -> None:
    (installed.bin / "iptables").unlink()
    conf = {"cniVersion": "1.0.0", "name": "qemubox", "plugins": [{"type": "bridge", "bridge": "b"}]}
    installed.put("/etc/qemubox/net.d/qemubox.conflist", json.dumps(conf))
    assert {line.level for line in await say(networks.look)} == {"ok"}


async def test_another_network_of_the_same_name(installed: FakeHost, say: Say) -> None:
    """In our directory it is an error; elsewhere both share their leases."""
    installed.put("/etc/cni/net.d/10-mine.conflist", _SHIPPED)
    warnings = [line for line in await say(networks.look) if line.level == "warning"]
    assert "has the same name" in warnings[0].found
    installed.put("/etc/qemubox/net.d/second.conflist", _SHIPPED)
    assert "2 files configure a network 'qemubox'" in (await say(networks.look))[0].found


async def test_another_network_with_our_addresses(installed: FakeHost, say: Say) -> None:
    other = {
        "cniVersion": "1.0.0",
        "name": "other",
        "plugins": [{"type": "bridge", "bridge": "br1", "ipam": {"type": "host-local", "subnet": "10.86.7.0/24"}}],
    }
    installed.put("/etc/cni/net.d/other.conflist", json.dumps(other))
    (line,) = [line for line in await say(networks.look) if line.level != "ok"]
    assert line.level == "warning"
    assert "gives addresses of 10.86.7.0/24" in line.found


async def test_a_broken_file_beside_it(installed: FakeHost, say: Say) -> None:
    installed.put("/etc/cni/net.d/broken.conflist", "{")
    (line,) = [line for line in await say(networks.look) if line.level != "ok"]
    assert line.level == "warning"
    assert "line 1, column 2" in line.found


@pytest.mark.usefixtures("installed")
async def test_a_route_into_our_addresses(no_routes: list[Route], say: Say) -> None:
    no_routes.append(Route(ipaddress.ip_network("10.86.3.0/24"), "vpn0"))
    (line,) = [line for line in await say(networks.look) if line.level != "ok"]
    assert "a route to 10.86.3.0/24 by vpn0" in line.found


@pytest.mark.parametrize(
    ("to", "interface", "conflict"),
    [
        ("10.86.1.0/24", "eth0", True),
        ("10.0.0.0/8", "vpn0", True),
        ("10.86.0.0/16", "qemubox0", False),
        ("10.87.0.0/16", "eth0", False),
        ("0.0.0.0/0", "eth0", False),
        ("fd71:656d:7562:6f78::1/128", "eth0", True),
        ("fe80::/64", "eth0", False),
        ("ff00::/8", "eth0", False),
    ],
)
def test_what_is_a_conflict(to: str, interface: str, conflict: bool) -> None:
    network = parse(_SHIPPED.encode(), "x")
    route = Route(ipaddress.ip_network(to), interface)
    found = subnets.conflicts(subnets.ranges(network), [route], subnets.bridges(network))
    assert found == ([route] if conflict else [])


def test_what_is_no_subnet_is_passed_over() -> None:
    ipam = {"type": "host-local", "subnet": "nonsense", "ranges": [[{"subnet": "10.1.0.0/16"}, {}], 3]}
    text = json.dumps({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge", "ipam": ipam}]})
    network = parse(text.encode(), "x")
    assert subnets.ranges(network) == [ipaddress.ip_network("10.1.0.0/16")]
    assert subnets.bridges(network) == {"cni0"}
