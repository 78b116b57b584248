"""The guest's network, made by vminitd's own code in a network namespace: the same as in the one it is to be like.

A veth stands where the guest's virtio-net is.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress

import pytest

from api.guest_pb2 import Address, Interface, NetworkConfig, Route, Rule
from tests.unit.vminitd.configured_network import MAC, OTHER, configure, configured, eth0, made, plug, seen, settled
from tests.unit.vminitd.network_namespace import Namespace, namespace
from tests.unit.vminitd.network_scenarios import SCENARIOS, SIMPLE
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


# Which the shim refuses so far.
BEYOND = (*SIMPLE[:3], "route add 10.9.0.0/16 via inet6 fd00:1::9 dev eth0")


@pytest.mark.parametrize("commands", [*SCENARIOS.values(), BEYOND], ids=[*SCENARIOS, "IPv4 by a gateway of IPv6"])
def test_the_guest_has_what_the_host_s_namespace_has(
    host: Namespace, guest: Namespace, commands: tuple[str, ...]
) -> None:
    plug(host, "eth0", MAC, "far0")
    wanted = made(host, commands)
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert settled(guest, "eth0") == wanted
    assert guest.setting("ipv6/conf/eth0/accept_ra") == guest.setting("ipv6/conf/eth0/autoconf") == "0"


def test_without_ipv6_there_is_no_ipv6(host: Namespace, guest: Namespace) -> None:
    plug(host, "eth0", MAC, "far0")
    host.set("ipv6/conf/eth0/disable_ipv6", "1")
    wanted = made(host, ("link set eth0 up", "addr add 10.1.0.5/24 dev eth0"))
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert settled(guest, "eth0") == wanted
    assert guest.setting("ipv6/conf/eth0/disable_ipv6") == "1"


def test_names_are_given_by_mac_whoever_has_them_now(host: Namespace, guest: Namespace) -> None:
    """Three in a circle, and one of them becomes a new one."""
    macs = {"eth0": MAC, "net1": OTHER, "net2": "02:00:00:00:00:03"}
    for number, (name, mac) in enumerate(macs.items(), 1):
        plug(host, name, mac, f"far{number}")
        host.ip(f"link set {name} up", f"addr add 10.{number}.0.5/24 dev {name}")
        settled(host, name)
    for number, (name, mac) in enumerate(zip(("net1", "net2", "eth0"), macs.values(), strict=True), 1):
        plug(guest, name, mac, f"far{number}")
    configure(guest, survey(host, *macs))
    for name in macs:
        settled(guest, name)
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
    made(host, SIMPLE)
    host.ip(*(f"route add 10.{100 + n // 250}.{n % 250}.0/24 via 10.1.0.{n % 240 + 6}" for n in range(1000)))
    plug(guest, "found7", MAC, "far0")
    configure(guest, survey(host, "eth0"))
    assert settled(guest, "eth0") == seen(host, "eth0")


def test_without_a_network_nobody_waits(guest: Namespace) -> None:
    async def waits() -> None:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        assert accept_ra() == "0"
        await network.there()
        assert accept_ra() == "1"
        await network.complete()
        network.close()
        uevents.close()

    guest.run_async(waits)


def accept_ra() -> str:
    """Of the calling thread's namespace, for interfaces that come."""
    with open("/proc/sys/net/ipv6/conf/default/accept_ra") as file:
        return file.read().strip()


def test_one_network_follows_another_that_has_gone(host: Namespace, guest: Namespace) -> None:
    """As where a client connects the container between Create and Start: the first leaves nothing."""
    plug(guest, "eth0", MAC, "far0")
    first = NetworkConfig(
        interfaces=[eth0(addresses=[Address(address="10.1.0.5/24")])],
        routes=[
            Route(destination="10.20.0.0/16", family=4, type=6),
            Route(gateway="10.1.0.1", interface="eth0", family=4),
        ],
        rules=[Rule(family=4, priority=9, table=100), Rule(family=6, priority=9, table=100, mark=5)],
    )
    plug(host, "eth0", OTHER, "far0")
    wanted = made(host, (*SIMPLE, "rule add from 10.1.0.5 lookup 100 priority 9"))
    second = survey(host, "eth0")

    async def both() -> None:
        uevents = Uevents(kernel_socket())
        network = Network(uevents, Capacity(uevents))
        network.expect(first)
        await network.there()
        for command in ("ip link del eth0", f"ip link add eth7 address {OTHER} type veth peer name far0"):
            done = await asyncio.create_subprocess_exec(*command.split())
            assert await done.wait() == 0
        network.expect(second)
        await network.there()
        network.close()
        uevents.close()

    guest.run_async(both)
    guest.ip("link set far0 addrgenmode none", "link set far0 up")
    assert guest.setting("ipv6/conf/eth0/accept_ra") == guest.setting("ipv6/conf/eth0/autoconf") == "0"
    assert settled(guest, "eth0") == wanted


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
