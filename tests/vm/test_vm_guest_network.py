"""The guest's network in a real guest: as in the namespace that it is to be like, from its first container on."""

import asyncio
import contextlib
import fcntl
import functools
import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from api import guest_pb2
from api.guest_pb2 import Address, Interface, NetworkConfig, Route
from harness.vminitd import Clone, Clones
from harness.vminitd import clones as clones
from harness.vminitd import template as template
from harness.vminitd import tools as tools
from shim.errors import GuestError
from shim.vm.devices import Nic
from tests.unit.vminitd.configured_network import settled
from tests.unit.vminitd.network_namespace import Namespace, lasting, namespace
from tests.unit.vminitd.surveyed_network import survey
from vminitd.spec import Json

pytestmark = pytest.mark.timeout(240)

MACS: Final = {"eth0": "02:00:00:00:00:01", "net1": "02:00:00:00:00:02"}
# Of a link, what does not depend on what it is made of.
LINK: Final = ("ifname", "flags", "mtu", "operstate", "txqlen", "address", "promiscuity", "allmulti", "addr_info")
QUESTIONS: Final = (
    "-4 route show table all",
    "-6 route show table all",
    "-4 rule",
    "-6 rule",
    "neigh show nud permanent",
)
# linux/if_tun.h
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP_NO_PI_VNET_HDR: Final = 0x0002 | 0x1000 | 0x4000
_IFF_MULTI_QUEUE: Final = 0x0100

HOST: Final = (
    "link set eth0 mtu 9000 up",
    "addr add 10.1.0.5/24 brd 10.1.0.255 dev eth0",
    "addr add 10.1.0.6/24 dev eth0",
    "addr add fd00:1::5/64 dev eth0",
    "addr add fd00:1::6/64 dev eth0",
    "route add default via 10.1.0.1",
    "route add 10.9.0.0/16 via 10.1.0.2 metric 7 mtu 1300 src 10.1.0.6",
    "-6 route add default via fd00:1::1",
    "link set net1 mtu 1450 txqueuelen 17 up",
    "addr add 10.2.0.5/32 dev net1",
    "route add 169.254.1.1 dev net1 scope link",
    "route add default via 169.254.1.1 dev net1 table 100",
    "route add unreachable 10.30.0.0/16",
    "-6 route add fd09::/32 via fe80::1 dev net1",
    "neigh add 169.254.1.1 lladdr 02:00:00:00:00:99 dev net1 nud permanent",
    "rule add from 10.2.0.5 lookup 100 priority 1000",
    "-6 rule add fwmark 0x10/0xf0 lookup 100000 priority 1001",
)


@pytest.fixture
def host() -> Iterator[Namespace]:
    with namespace() as made:
        for which in ("all", "default"):
            made.set(f"ipv6/conf/{which}/accept_dad", "0")
        yield made


@contextlib.contextmanager
def taps(where: Namespace, name: str, queues: int = 1) -> Iterator[tuple[int, ...]]:
    """The open queues of a TAP in there, which is up."""
    flags = _IFF_TAP_NO_PI_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)

    def open_one() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        return fd

    fds = tuple(where.run(open_one) for _ in range(queues))
    try:
        where.ip(f"link set {name} mtu 9000 up")
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def eth0(*addresses: str, mtu: int = 1500, queues: int = 1) -> Interface:
    return Interface(
        mac=MACS["eth0"],
        name="eth0",
        mtu=mtu,
        addresses=[Address(address=each) for each in addresses],
        up=True,
        ipv6=True,
        queues=queues,
    )


async def plug(clone: Clone, where: Namespace, name: str, mac: str, queues: int = 1) -> None:
    """Into the machine, which has the TAP from then on."""
    with taps(where, f"tap-{name}", queues) as fds:
        await clone.vm.add_nic(Nic(name, mac, fds))


def link(found: Json) -> Json:
    return {name: value for name, value in lasting(found).items() if name in LINK}


async def test_a_clone_has_what_the_host_s_namespace_has(clones: Clones, host: Namespace) -> None:
    """Two interfaces, plugged in the other way round, so that each has the other's name when it is found."""
    for number, (name, mac) in enumerate(MACS.items()):
        host.ip(
            f"link add {name} address {mac} type veth peer name far{number}",
            f"link set far{number} addrgenmode none",
            f"link set far{number} up",
        )
    host.ip(*HOST)
    for name in MACS:
        settled(host, name)
    config = survey(host, *MACS)
    config.sysctls["net.ipv4.conf.eth0.rp_filter"] = "2"
    with namespace() as outside:
        async with clones() as clone:
            for name, mac in reversed(MACS.items()):
                await plug(clone, outside, name, mac)
            await clone.run()
            await clone.configure(config)
            for name in (*MACS, "lo"):
                (found,), (wanted,) = await clone.ip(f"-d addr show dev {name}"), host.ask(f"addr show dev {name}")
                assert link(found) == link(wanted)
            for question in QUESTIONS:
                wanted_all = [each for each in host.ask(question) if not str(each.get("dev")).startswith("far")]
                assert [lasting(each) for each in await clone.ip(f"-d {question}")] == wanted_all, question
            for setting, value in {
                "ipv4/conf/eth0/rp_filter": "2",
                "ipv6/conf/net1/accept_ra": "0",
                "ipv6/conf/net1/autoconf": "0",
                "ipv6/conf/default/accept_ra": "1",
            }.items():
                assert (await clone.says("/bin/busybox", "cat", f"/proc/sys/net/{setting}")).strip() == value
            marks = await clone.marks()
            assert marks["network"] < marks["started"]


@pytest.mark.release
async def test_frames_of_its_size_go_to_and_fro(clones: Clones, host: Namespace) -> None:
    """A datagram of 8000 bytes in one piece, by IPv4 and IPv6: nobody listens, and the guest says so."""
    async with clones() as clone:
        await plug(clone, host, "eth0", MACS["eth0"])
        host.ip("addr add 10.1.0.1/24 dev tap-eth0", "addr add fd00:1::1/64 dev tap-eth0")
        await clone.run()
        await clone.configure(NetworkConfig(interfaces=[eth0("10.1.0.5/24", "fd00:1::5/64", mtu=9000)]))
        await clone.create("/bin/ip")  # which waits for the network
        for address in ("10.1.0.5", "fd00:1::5"):
            await asyncio.to_thread(host.run, functools.partial(is_refused, address, bytes(8000)))


def is_refused(address: str, datagram: bytes) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO: never in pieces
        sock.settimeout(20)
        sock.connect((address, 9))
        sock.send(datagram)
        with pytest.raises(ConnectionRefusedError):
            sock.recv(1)


@pytest.mark.release
async def test_an_interface_that_comes_later_is_waited_for(clones: Clones, host: Namespace) -> None:
    async with clones() as clone:
        await clone.run()
        await clone.configure(NetworkConfig(interfaces=[eth0("10.1.0.5/24")]))
        creating = asyncio.create_task(clone.create("/bin/ip"))
        await asyncio.wait([creating], timeout=3)
        assert not creating.done()
        await plug(clone, host, "eth0", MACS["eth0"])
        await creating
        assert "inet 10.1.0.5/24" in await clone.says("/bin/ip", "addr", "show", "dev", "eth0")


async def test_a_container_without_its_network_is_none(clones: Clones, host: Namespace) -> None:
    """It fails in the kernel's words, and nothing of it is left: neither process nor cgroup nor mount."""
    async with clones() as clone:
        await plug(clone, host, "eth0", MACS["eth0"])
        await clone.run()
        route = Route(destination="10.9.0.0/16", gateway="10.8.0.1", interface="eth0", family=4)
        await clone.configure(NetworkConfig(interfaces=[eth0("10.1.0.5/24")], routes=[route]))
        words = (
            r"route to 10\.9\.0\.0/16 via 10\.8\.0\.1 dev eth0: Network is unreachable \(Nexthop has invalid gateway\)"
        )
        for _ in range(2):
            with pytest.raises(GuestError, match=words):
                await clone.create("/bin/ip")
        pids = clone.guest.containers.Pids(guest_pb2.ContainerRequest(container_id="program1"))
        with pytest.raises(GuestError, match="there is no container 'program1'"):
            await clone.guest.call(pids, deadline_s=30)


@pytest.mark.release
async def test_all_queues_are_used_once_all_processors_are_there(clones: Clones, host: Namespace) -> None:
    """The driver takes one pair for each processor that is online when it finds the device: one."""
    async with clones() as clone:
        await plug(clone, host, "eth0", MACS["eth0"], queues=4)
        await clone.run()
        await clone.configure(NetworkConfig(interfaces=[eth0("10.1.0.5/24", queues=4)]), vcpus=4)
        queues = (await clone.says("/bin/busybox", "ls", "/sys/class/net/eth0/queues")).split()
        assert queues == [f"{way}-{number}" for way in ("rx", "tx") for number in range(4)]


@pytest.mark.release
async def test_fewer_queues_than_it_is_said_to_have_are_refused_by_name(clones: Clones, host: Namespace) -> None:
    async with clones() as clone:
        await plug(clone, host, "eth0", MACS["eth0"], queues=2)
        await clone.run()
        await clone.configure(NetworkConfig(interfaces=[eth0("10.1.0.5/24", queues=4)]))
        with pytest.raises(GuestError, match=r"^interface eth0 cannot use 4 pairs of queues: Invalid argument$"):
            await clone.says("/bin/ip")
