"""The guest's network, made by vminitd's own code in a network namespace: the same as in the one it is to be like.

A veth stands where the guest's virtio-net is.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress

import pytest

from api.guest_pb2 import Interface, NetworkConfig, Rule
from tests.unit.vminitd.configured_network import MAC, OTHER, configure, configured, eth0, plug, seen
from tests.unit.vminitd.network_namespace import Namespace, namespace
from tests.unit.vminitd.surveyed_network import survey
from ttrpc import StatusError
from vminitd import milestones
from vminitd.capacity import Capacity
from vminitd.network.network import Network
from vminitd.uevent import Uevents, kernel_socket


@pytest.fixture
def host() -> Iterator[Namespace]:
    with namespace() as made:
        for which in ("all", "default"):  # whoever looks for duplicates is not there yet for a second
            made.set(f"ipv6/conf/{which}/accept_dad", "0")
        yield made


SIMPLE = (
    "link set eth0 mtu 1450 up",
    "addr add 10.1.0.5/24 brd 10.1.0.255 dev eth0",
    "addr add fd00:1::5/64 dev eth0",
    "route add default via 10.1.0.1",
    "-6 route add default via fd00:1::1",
)
SCENARIOS = {
    "a bridge's": SIMPLE,
    "down, with all it has": ("link set eth0 mtu 9000 txqueuelen 17", "addr add 10.1.0.5/24 dev eth0"),
    "up without an address": ("link set eth0 up",),
    "promiscuous": ("link set eth0 promisc on allmulticast on up", "addr add 10.1.0.5/24 dev eth0"),
    "several addresses of one network": (
        *SIMPLE,
        "addr add 10.1.0.6/24 dev eth0",
        "addr add 10.1.0.7/16 dev eth0",
        "addr add fd00:1::6/64 dev eth0",
    ),
    "by its gateway alone, as ptp does it": (
        "link set eth0 up",
        "addr add 10.1.0.5/24 dev eth0",
        "addr add fd00:1::5/64 dev eth0",
        "route del 10.1.0.0/24 dev eth0",
        "-6 route del fd00:1::/64 dev eth0",
        "route add 10.1.0.1/32 dev eth0 scope link src 10.1.0.5",
        "route add 10.1.0.0/24 via 10.1.0.1 src 10.1.0.5",
        "-6 route add fd00:1::1/128 dev eth0 src fd00:1::5",
        "-6 route add fd00:1::/64 via fd00:1::1 src fd00:1::5",
        "route add default via 10.1.0.1",
        "-6 route add default via fd00:1::1",
    ),
    "on-link gateways, as Calico and cloud networks have them": (
        "link set eth0 up",
        "addr add 10.1.0.5/32 dev eth0",
        "addr add fd00:1::5/128 dev eth0",
        "route add 169.254.1.1 dev eth0 scope link",
        "route add default via 169.254.1.1 dev eth0",
        "route add 10.9.0.0/16 via 192.0.2.1 dev eth0 onlink",
        "-6 route add default via fe80::1 dev eth0",
        "neigh add 169.254.1.1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
        "neigh add fe80::1 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    ),
    "a peer": (
        "link set eth0 up",
        "addr add 10.1.0.5 peer 10.2.0.1/32 dev eth0",
        "addr add 10.3.0.5 peer 10.4.0.1/24 dev eth0",
        "addr add fd00:1::5 peer fd00:2::1/128 dev eth0",
    ),
    "scopes": (
        "link set eth0 up",
        "addr add 10.1.0.5/24 dev eth0 scope link",
        "addr add 10.2.0.5/24 dev eth0 scope 99",
    ),
    "an IPv4 route by an IPv6 gateway": (*SIMPLE[:3], "route add 10.9.0.0/16 via inet6 fd00:1::9 dev eth0"),
    "metrics, sources, MTU": (
        *SIMPLE,
        "route add 10.9.0.0/16 via 10.1.0.2 metric 7 mtu 1300 src 10.1.0.5",
        "route add 10.9.0.0/16 via 10.1.0.3 metric 8",
        "-6 route add fd09::/32 via fd00:1::2 metric 7 mtu 1300",
        "-6 route add fd09::/32 via fd00:1::3 metric 8",
    ),
    "two routes to one place": (
        *SIMPLE,
        "route add 10.9.0.0/16 via 10.1.0.2",
        "route append 10.9.0.0/16 via 10.1.0.3",
    ),
    "routes that lead nowhere": (
        *SIMPLE,
        "route add blackhole 10.20.0.0/16",
        "route add unreachable 10.21.0.0/16 metric 3",
        "route add prohibit 10.22.0.0/16",
        "route add throw 10.23.0.0/16 table 300",
        "-6 route add blackhole fd20::/32",
        "-6 route add unreachable fd21::/32",
        "-6 route add prohibit fd22::/32 table 7",
    ),
    "policy": (
        *SIMPLE,
        "route add default via 10.1.0.2 table 100",
        "-6 route add default via fd00:1::2 table 100000",
        "rule add from 10.1.0.5 lookup 100 priority 1000",
        "rule add to 10.30.0.0/16 iif lo oif eth0 lookup 100 priority 1001",
        "rule add fwmark 0x10/0xf0 lookup 1000000 priority 1002",
        "rule add fwmark 5 lookup 100 priority 1003",
        "-6 rule add from fd00:1::5/128 to fd30::/32 lookup 100000 priority 1000",
        "-6 rule add fwmark 0x10/0xf0 iif eth0 lookup 7 priority 1001",
    ),
}


@pytest.mark.parametrize("commands", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_the_guest_has_what_the_host_s_namespace_has(
    host: Namespace, guest: Namespace, commands: tuple[str, ...]
) -> None:
    plug(host, "eth0", MAC, "far0")
    host.ip(*commands)
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert seen(guest, "eth0") == seen(host, "eth0")
    assert guest.setting("ipv6/conf/eth0/accept_ra") == guest.setting("ipv6/conf/eth0/autoconf") == "0"


def test_without_ipv6_there_is_no_ipv6(host: Namespace, guest: Namespace) -> None:
    plug(host, "eth0", MAC, "far0")
    host.set("ipv6/conf/eth0/disable_ipv6", "1")
    host.ip("link set eth0 up", "addr add 10.1.0.5/24 dev eth0")
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert seen(guest, "eth0") == seen(host, "eth0")
    assert guest.setting("ipv6/conf/eth0/disable_ipv6") == "1"


def test_names_are_given_by_mac_whoever_has_them_now(host: Namespace, guest: Namespace) -> None:
    """Three in a circle, and one of them becomes a new one."""
    macs = {"eth0": MAC, "net1": OTHER, "net2": "02:00:00:00:00:03"}
    for number, (name, mac) in enumerate(macs.items(), 1):
        plug(host, name, mac, f"far{number}")
        host.ip(f"link set {name} up", f"addr add 10.{number}.0.5/24 dev {name}")
    for number, (name, mac) in enumerate(zip(("net1", "net2", "eth0"), macs.values(), strict=True), 1):
        plug(guest, name, mac, f"far{number}")
    configure(guest, survey(host, *macs))
    assert seen(guest, *macs) == seen(host, *macs)


def test_one_that_comes_later_is_waited_for(host: Namespace, guest: Namespace) -> None:
    for name, mac, far in (("eth0", MAC, "far0"), ("eth1", OTHER, "far1")):
        plug(host, name, mac, far)
        host.ip(f"link set {name} up")
    plug(guest, "eth0", MAC, "far0")
    config = survey(host, "eth0", "eth1")

    async def later() -> None:
        waiting = asyncio.create_task(configured(config))
        await asyncio.wait([waiting], timeout=0.2)
        assert not waiting.done()
        made = await asyncio.create_subprocess_exec(
            *f"ip link add any address {OTHER} type veth peer name far1 address 02:00:00:00:ff:02".split()
        )
        assert await made.wait() == 0
        await waiting

    guest.run_async(later)
    assert [each["address"] for each in guest.ask("link show dev eth1")] == [OTHER]


def test_settings_are_made_by_the_names_that_the_interfaces_have_then(guest: Namespace) -> None:
    plug(guest, "found7", MAC, "far0")
    sysctls = {"net.ipv4.conf.eth0/5.rp_filter": "2", "net.ipv4.ip_nonlocal_bind": "1"}
    configure(guest, NetworkConfig(interfaces=[Interface(mac=MAC, name="eth0.5")], sysctls=sysctls))
    assert guest.setting("ipv4/conf/eth0.5/rp_filter") == "2"
    assert guest.setting("ipv4/ip_nonlocal_bind") == "1"


def test_a_thousand_routes(host: Namespace, guest: Namespace) -> None:
    plug(host, "eth0", MAC, "far0")
    host.ip(*SIMPLE, *(f"route add 10.{100 + n // 250}.{n % 250}.0/24 via 10.1.0.{n % 240 + 6}" for n in range(1000)))
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert seen(guest, "eth0") == seen(host, "eth0")


def test_without_a_network_nobody_waits(guest: Namespace) -> None:
    async def waits() -> None:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        await network.there()
        await network.complete()
        network.expect(None)
        await network.complete()
        network.close()
        uevents.close()

    guest.run_async(waits)
    assert guest.setting("ipv6/conf/default/accept_ra") == "1"


def test_only_the_machine_s_own_interfaces_are_kept_from_routers(guest: Namespace) -> None:
    """Those that were there before vminitd, and those that come; not those that a program makes."""
    plug(guest, "found7", MAC, "far0")

    async def comes() -> None:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        made = await asyncio.create_subprocess_exec(*f"ip link add late address {OTHER} type veth peer far1".split())
        assert await made.wait() == 0
        network.expect(NetworkConfig(interfaces=[eth0(), Interface(mac=OTHER, name="eth1", ipv6=True)]))
        await network.there()
        network.close()
        uevents.close()

    guest.run_async(comes)
    plug(guest, "own", "02:00:00:00:00:07", "far2")
    for setting in ("accept_ra", "autoconf"):
        for name, value in {"eth0": "0", "eth1": "0", "own": "1", "default": "1"}.items():
            assert guest.setting(f"ipv6/conf/{name}/{setting}") == value
    assert milestones.marks()[-1][0] == "network"


def test_a_template_s_rehearsal_changes_nothing(guest: Namespace) -> None:
    plug(guest, "found7", MAC, "far0")
    before = seen(guest, "found7")

    async def rehearses() -> None:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        network.rehearse()
        network.close()
        uevents.close()

    guest.run_async(rehearses)
    assert seen(guest, "found7") == before


def test_an_error_is_told_to_everyone_who_waits(guest: Namespace) -> None:
    async def both() -> list[object]:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        network.expect(NetworkConfig(rules=[Rule(family=5, priority=1, table=1)]))
        waiting: list[Coroutine[object, object, None]] = [network.there(), network.there(), network.complete()]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        network.close()
        uevents.close()
        return [str(each) for each in found]

    assert len({*guest.run_async(both)}) == 1


def test_no_descriptor_is_left(guest: Namespace) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with suppress(StatusError):
        configure(guest, NetworkConfig(rules=[Rule(family=4, priority=9, table=9)] * 2))
    assert set(os.listdir("/proc/self/fd")) == before
