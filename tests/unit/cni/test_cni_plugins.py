"""Debian's plugins and the newest, for real: in a network namespace that is the host's for the test, and one more."""

import asyncio
import json
import sys
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path

import pytest

from cni import Attachment, CniError, PluginError, UnsupportedError
from cni.document import Json
from tests.unit.cni.namespaces import as_host, inside, ip, network_namespace
from tests.unit.cni.site import BRIDGE, CAPABILITIES, DEBIAN, Site, attached, links, newest
from tests.unit.shim.observe import until

# The first test may have to build the newest plugins.
pytestmark = pytest.mark.timeout(900)

# Answers each connection with its own address, until it is killed.
_SERVER = """
import socket
with socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("listens", flush=True)
    while True:
        connection, peer = server.accept()
        connection.sendall(peer[0].encode())
        connection.close()
"""


@pytest.fixture(scope="module", params=["debian", "newest"])
def plugin_dir(request: pytest.FixtureRequest) -> Path:
    return DEBIAN if request.param == "debian" else newest()


@pytest.fixture
def site(tmp_path: Path, plugin_dir: Path) -> Iterator[Site]:
    with as_host():
        yield Site(tmp_path, plugin_dir)


def _addresses(netns: str, ifname: str = "eth0") -> set[str]:
    found: list[dict[str, list[dict[str, str]]]] = json.loads(inside(netns, "ip", "-json", "addr", "show", ifname))
    return {f"{item['local']}/{item['prefixlen']}" for item in found[0]["addr_info"] if item["scope"] == "global"}


def _link(netns: str, ifname: str = "eth0") -> Json:
    found: list[Json] = json.loads(inside(netns, "ip", "-json", "-details", "link", "show", ifname))
    return found[0]


async def test_a_chain_is_made_checked_and_taken_away(site: Site, netns: str) -> None:
    network, attachment = site.chain(), attached(netns)
    result = await site.cni().add(network, attachment)
    eth0 = next(item for item in result.interfaces if item.sandbox == netns)
    assert (eth0.name, eth0.mac) == ("eth0", "02:00:00:00:00:01")
    assert _link(netns)["address"] == "02:00:00:00:00:01"
    assert _addresses(netns) == {"10.93.0.2/24", "fd93::2/64"} == {str(item.address) for item in result.ips}
    assert {str(item.gateway) for item in result.ips} == {"10.93.0.1", "fd93::1"}
    assert site.leases() == ["10.93.0.2", "fd93::2"]
    assert site.results() == ["testnet-c1-eth0"]
    assert any("10.93.0.2" in line for line in site.left() if line.startswith("-A CNI-FORWARD"))
    assert any("--to-destination 10.93.0.2:80" in line for line in site.left())
    assert inside(netns, "ip", "-6", "route", "show", "default").startswith("default via fd93::1")
    assert any(str(link["ifname"]).startswith("bwp") for link in links())
    await site.cni().delete(network, attachment)
    assert site.left() == []
    assert [str(link["ifname"]) for link in links()] == ["lo", BRIDGE]
    assert inside(netns, "ip", "-o", "link").count("\n") == 1


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
async def test_check_tells_what_is_no_longer_so(site: Site, netns: str, version: str) -> None:
    if version == "1.1.0" and site.plugin_dir == DEBIAN:
        version = "1.0.0"
    plugins: list[Json] = [site.bridge("10.93.0.0/24"), {"type": "firewall"}, {"type": "tuning", "mtu": 1400}]
    network = site.network(*plugins, version=version)
    runner = site.cni()
    await runner.add(network, attached(netns))
    await runner.check(network, attached(netns))
    assert _link(netns)["mtu"] == 1400
    inside(netns, "ip", "link", "set", "eth0", "mtu", "1300")
    with pytest.raises(PluginError, match=r"plugin 'tuning' failed with code 999: .*1300.*") as caught:
        await runner.check(network, attached(netns))
    assert caught.value.command == "CHECK"
    await runner.delete(network, attached(netns))
    assert site.left() == []


async def test_a_version_that_a_plugin_does_not_know(site: Site, netns: str) -> None:
    """firewall came with 0.4.0; the plugin that knows the version has its work undone."""
    network = site.network(site.bridge("10.93.0.0/24"), {"type": "firewall"}, version="0.3.1")
    with pytest.raises(PluginError, match=r"code 1: incompatible CNI versions; .*give the network a cniVersion that"):
        await site.cni().add(network, attached(netns))
    assert site.leases() == []
    with pytest.raises(UnsupportedError):
        await site.cni().check(network, attached(netns))


@pytest.mark.parametrize("mtu", [1450, 9000])
async def test_the_mtu_arrives(site: Site, netns: str, mtu: int) -> None:
    network = site.network(site.bridge("10.93.0.0/24", mtu=mtu))
    await site.cni().add(network, attached(netns))
    assert _link(netns)["mtu"] == mtu
    await site.cni().delete(network, attached(netns))


async def test_a_published_port_answers(site: Site, netns: str) -> None:
    network = site.chain()
    await site.cni().add(network, attached(netns))
    command = ["ip", "netns", "exec", Path(netns).name, sys.executable, "-c", _SERVER]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert await server.stdout.readline() == b"listens\n"
        until(lambda: "tentative" not in ip("-6", "address"), "the bridge's address is nobody else's")
        for address in ("10.93.0.1", "127.0.0.1", "fd93::1"):
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(address, 8080)
                assert await reader.read() != b""
                writer.close()
                await writer.wait_closed()
    finally:
        server.kill()
        await server.wait()
    await site.cni().delete(network, attached(netns))
    assert site.left() == []


async def test_ptp_macvlan_and_loopback(site: Site, netns: str) -> None:
    ip("link", "add", "master0", "type", "veth", "peer", "name", "master1")
    ipam = site.bridge("10.93.0.0/24")["ipam"]
    made: list[Json] = [
        {"type": "ptp", "ipMasq": True, "ipam": ipam},
        {"type": "macvlan", "master": "master0", "ipam": ipam},
        {"type": "loopback"},
    ]
    for number, conf in enumerate(made):
        ifname = "lo" if conf["type"] == "loopback" else f"net{number}"
        attachment = Attachment("c1", netns, ifname)
        network = site.network(conf)
        result = await site.cni().add(network, attachment)
        if ifname == "lo":
            assert "127.0.0.1/8" in {str(item.address) for item in result.ips}
        else:
            assert _addresses(netns, ifname) == {str(item.address) for item in result.ips} != set()
        await site.cni().check(network, attachment)
    for number, conf in enumerate(made):
        ifname = "lo" if conf["type"] == "loopback" else f"net{number}"
        await site.cni().delete(site.network(conf), Attachment("c1", netns, ifname))
    assert site.left() == ["link master1", "link master0"]


async def test_addresses_and_arguments_that_are_asked_for(site: Site, netns: str) -> None:
    conf = site.bridge("10.93.0.0/24", capabilities={"ips": True})
    network = site.network(conf)
    result = await site.cni().add(network, attached(netns, capabilities={"ips": ["10.93.0.77/24"]}))
    assert [item.address for item in result.ips] == [ip_interface("10.93.0.77/24")]
    with network_namespace() as other:
        with pytest.raises(PluginError, match=r"plugin 'bridge' failed .*10\.93\.0\.77") as caught:
            await site.cni().add(network, attached(other, "c2", {"ips": ["10.93.0.77/24"]}))
        assert caught.value.network == "testnet"
        assert site.leases() == ["10.93.0.77"]  # the first one's, still
        by_args = Attachment("c2", other, "eth0", args=(("IgnoreUnknown", "1"), ("IP", "10.93.0.78")))
        result = await site.cni().add(network, by_args)
        assert [item.address for item in result.ips] == [ip_interface("10.93.0.78/24")]
        await site.cni().delete(network, by_args)
    await site.cni().delete(network, attached(netns))
    assert site.left() == []


async def test_a_retry_after_a_lost_answer(site: Site, netns: str) -> None:
    """Who was killed between the last plugin and noting its success does the ADD again."""
    network = site.chain()
    first = await site.cni().add(network, attached(netns))
    second = await site.cni().add(network, attached(netns))
    assert len(second.ips) == len(first.ips) == len(site.leases())
    await site.cni().delete(network, attached(netns))
    assert site.left() == []


async def test_gc_frees_what_nobody_holds(site: Site, netns: str) -> None:
    version = "1.0.0" if site.plugin_dir == DEBIAN else "1.1.0"
    network = site.chain(version=version)
    runner = site.cni()
    await runner.add(network, attached(netns))
    with network_namespace() as other:
        await runner.add(network, attached(other, "c2", {**CAPABILITIES, "portMappings": []}))
        await runner.gc(network, [("c1", "eth0")])
        assert site.results() == ["testnet-c1-eth0"]
        assert len(site.leases()) == 2
    await runner.gc(network, [])
    assert site.left() == []


async def test_status(site: Site) -> None:
    if site.plugin_dir == DEBIAN:
        await site.cni().status(site.chain())
        with pytest.raises(PluginError, match="STATUS of network 'testnet'"):
            await site.cni().status(site.chain(version="1.1.0"))
        return
    await site.cni().status(site.chain(version="1.1.0"))
    ipam: Json = {"type": "not-there"}
    with pytest.raises(PluginError, match=r"STATUS of network 'testnet' .* plugin 'bridge' failed .*not-there"):
        await site.cni().status(site.network({"type": "bridge", "ipam": ipam}, version="1.1.0"))


async def test_what_a_vanished_namespace_had_outside_is_freed(site: Site) -> None:
    network = site.chain()
    with network_namespace() as netns:
        await site.cni().add(network, attached(netns))
    await site.cni().delete(network, attached(netns))
    assert site.left() == []


async def test_what_a_vanished_interface_had_outside_is_freed(site: Site, netns: str) -> None:
    network = site.chain()
    await site.cni().add(network, attached(netns))
    inside(netns, "ip", "link", "del", "eth0")
    with pytest.raises(CniError):
        await site.cni().check(network, attached(netns))
    await site.cni().delete(network, attached(netns))
    assert site.left() == []
