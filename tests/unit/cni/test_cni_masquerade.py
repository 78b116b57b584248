"""Masquerading rules that a plugin was killed over, with real plugins: DEL comes to its end, and takes the others."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cni import PluginError
from cni.cache import Cache
from cni.masquerade import addresses, is_gone
from tests.unit.cni.namespaces import as_host, inside, output
from tests.unit.cni.site import DEBIAN, Site, attached, newest

# The first test may have to build the newest plugins.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(params=["debian", "newest"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    plugins = DEBIAN if request.param == "debian" else newest()
    with as_host():
        yield Site(tmp_path, plugins)


def _take(program: str, *, chain: bool = True) -> None:
    """As a DEL that was killed half-way, or an ADD that had not come to it."""
    rules = output(program, "-t", "nat", "-S", "POSTROUTING").splitlines()
    (rule,) = [line for line in rules if re.search(r"-j CNI-[0-9a-f]{24}$", line)]
    output("sh", "-c", f"{program} -t nat {rule.replace('-A', '-D', 1)}")
    if chain:
        name = rule.split()[-1]
        output(program, "-t", "nat", "-F", name)
        output(program, "-t", "nat", "-X", name)


@pytest.mark.parametrize("program", ["iptables", "ip6tables"])
@pytest.mark.parametrize("how", ["interface is there", "interface is gone", "namespace is gone", "half an ADD"])
async def test_del_where_the_rules_of_one_address_are_gone(site: Site, netns: str, program: str, how: str) -> None:
    network, attachment = site.network(site.bridge("10.93.0.0/24", "fd93::/64")), attached(netns)
    await site.cni().add(network, attachment)
    _take(program)
    if how == "interface is gone":
        inside(netns, "ip", "link", "delete", "eth0")
    elif how == "namespace is gone":
        attachment = replace(attachment, netns="/run/netns/cnitest-gone")
    elif how == "half an ADD":
        cache = Cache(site.cache_dir)
        (entry,) = cache.entries()
        cache.write(replace(entry, result=None))
    await site.cni().delete(network, attachment)
    if how != "namespace is gone":
        assert site.left() == []
    else:
        assert [line for line in site.left() if not line.startswith("link veth")] == []


async def test_del_where_all_rules_are_gone(site: Site, netns: str) -> None:
    network, attachment = site.network(site.bridge("10.93.0.0/24", "fd93::/64")), attached(netns)
    await site.cni().add(network, attachment)
    for program in ("iptables", "ip6tables"):
        _take(program)
    await site.cni().delete(network, attachment)
    assert site.left() == []


async def test_the_addresses_of_an_interface(netns: str) -> None:
    inside(netns, "ip", "link", "add", "eth0", "type", "veth")
    for address in ("10.1.2.3/24", "10.1.2.4/32", "fd93::7/64"):
        inside(netns, "ip", "address", "add", address, "dev", "eth0")
    inside(netns, "ip", "link", "set", "eth0", "up")
    assert await addresses(netns, "eth0", timeout_s=20) == ["10.1.2.3/24", "10.1.2.4/32", "fd93::7/64"]
    assert await addresses(netns, "eth1", timeout_s=20) == []
    assert await addresses("/run/netns/cnitest-gone", "eth0", timeout_s=20) == []


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("iptables v1.8.9 (nf_tables): Chain 'CNI-e09322953f9fce08e4d671f3' does not exist Try `iptables -h'", True),
        (
            "iptables v1.8.9 (legacy): Couldn't load target `CNI-e09322953f9fce08e4d671f3':No such file or directory",
            True,
        ),
        ("Another app is currently holding the xtables lock. Perhaps you want to use the -w option?", False),
    ],
)
def test_what_is_said_of_a_chain_that_is_gone(words: str, gone: bool) -> None:
    command = (
        "running [/usr/sbin/iptables -t nat -D POSTROUTING -s 10.99.0.7 -j CNI-e0 -m comment --wait]: exit status 2: "
    )
    assert is_gone(PluginError("bridge", "net", "/f", "DEL", code=999, msg=command + words, details="")) is gone
