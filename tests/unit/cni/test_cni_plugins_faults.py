"""Real plugins with one among them that fails, hangs or takes us along, at each place; and what else goes wrong.

Debian's alone: what is looked at is ours.
"""

import asyncio
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni import Cni, PluginEnded, PluginError, PluginTimeout
from tests.unit.cni.namespaces import as_host, inside, network_namespace
from tests.unit.cni.site import DEBIAN, Site, attached


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with as_host():
        yield Site(tmp_path, DEBIAN)


def _extra(site: Site, body: str) -> None:
    """A plugin that does something on ADD, and nothing else."""
    path = site.extra_dir / "extra"
    path.write_text(f"#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND != ADD ] || {{ {body}; }}\n")
    path.chmod(0o755)


def _adding(site: Site, conf: bytes, netns: str) -> str:
    return f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from cni import parse
from tests.unit.cni.site import Site, attached
site = Site.__new__(Site)
site.plugin_dir, site.extra_dir = Path({str(site.plugin_dir)!r}), Path({str(site.extra_dir)!r})
site.cache_dir, site.lock = Path({str(site.cache_dir)!r}), Path({str(site.lock)!r})
asyncio.run(site.cni().add(parse({conf!r}, "x"), attached({netns!r})))
"""


@pytest.mark.parametrize("position", range(6))
async def test_a_plugin_that_fails_at_each_place_leaves_nothing(site: Site, netns: str, position: int) -> None:
    _extra(site, "exit 1")
    plugins = [plugin.conf for plugin in site.chain().plugins]
    plugins.insert(position, {"type": "extra"})
    with pytest.raises(PluginEnded):
        await site.cni().add(site.network(*plugins), attached(netns))
    assert site.left() == []
    assert inside(netns, "ip", "-o", "link").count("\n") == 1


@pytest.mark.parametrize("position", range(1, 6))
async def test_a_kill_at_each_place_leaves_what_a_delete_takes_away(site: Site, netns: str, position: int) -> None:
    _extra(site, "kill -9 $PPID; kill -9 $$")
    plugins = [plugin.conf for plugin in site.chain().plugins]
    plugins.insert(position, {"type": "extra"})
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", _adding(site, site.network(*plugins).raw, netns))
    assert await child.wait() == -signal.SIGKILL
    assert site.leases() != []
    runner = site.cni()
    (left,) = runner.cached()
    assert left.attachment == attached(netns)
    await runner.delete(left.network, left.attachment)
    assert site.left() == []


@pytest.mark.parametrize("position", [0, 2, 5])
async def test_a_plugin_that_hangs_leaves_nothing(site: Site, netns: str, position: int) -> None:
    _extra(site, "sleep 600")
    plugins = [plugin.conf for plugin in site.chain().plugins]
    plugins.insert(position, {"type": "extra"})
    dirs = [site.extra_dir, site.plugin_dir]
    runner = Cni(plugin_dirs=dirs, cache_dir=site.cache_dir, lock=site.lock, timeout_s=3)
    with pytest.raises(PluginTimeout, match="plugin 'extra' did not end within 3 s"):
        await runner.add(site.network(*plugins), attached(netns))
    assert site.left() == []


async def test_an_exhausted_range(site: Site, netns: str) -> None:
    network = site.network(site.bridge("10.93.0.0/30"), {"type": "firewall"})
    await site.cni().add(network, attached(netns))
    before = site.left()
    with network_namespace() as other:
        words = r"network 'testnet' \(/net\.d/test\.conflist\): plugin 'bridge' failed .*no IP addresses available"
        with pytest.raises(PluginError, match=words):
            await site.cni().add(network, attached(other, "c2"))
        assert inside(other, "ip", "-o", "link").count("\n") == 1
    assert site.left() == before
    await site.cni().delete(network, attached(netns))
    assert site.left() == []


async def test_an_interface_that_is_there_already(site: Site, netns: str) -> None:
    inside(netns, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    network = site.network(site.bridge("10.93.0.0/24"))
    with pytest.raises(PluginError, match=r"plugin 'bridge' failed with code 999: .*eth0.* already exists"):
        await site.cni().add(network, attached(netns))
    assert site.left() == []


async def test_twenty_at_once(site: Site) -> None:
    """At the end exactly the leases that running containers hold."""
    network = site.network(site.bridge("10.93.0.0/24"), {"type": "firewall"})
    with ExitStack() as stack:
        places = [attached(stack.enter_context(network_namespace()), f"c{n}", {}) for n in range(20)]
        results = await asyncio.gather(*(site.cni().add(network, place) for place in places))
        addresses = {str(item.address.ip) for result in results for item in result.ips}
        assert len(addresses) == 20
        assert set(site.leases()) == addresses
        await asyncio.gather(*(site.cni().delete(network, place) for place in places[:15]))
        assert len(site.leases()) == len(site.results()) == 5
        await asyncio.gather(*(site.cni().delete(network, place) for place in places))
    assert site.left() == []
