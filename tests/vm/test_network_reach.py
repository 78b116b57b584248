"""Machines and a container of runc on one bridge: they reach each other, and what they send each other stays whole."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from harness import cni, echo
from harness.attached import Attached, attached
from harness.box import Box
from harness.deadline import eventually
from harness.inside import Inside, inside

_TCP_SIZES = (1, 1448, 65_536, 1_000_003, 8 << 20)
_UDP_SIZES = (1, 512, 1400, 1472, 1473, 8192, 60_000)
_DEADLINE_S = 20.0


@dataclass(frozen=True)
class _Peer:
    """A container, and where it is reached."""

    name: str
    shell: Inside
    ip4: str
    ip6: str


@pytest.fixture
def hosts(vm: Box) -> Iterator[Path]:
    """A hosts file as nerdctl has one for each container: mounted, and written once addresses are known."""
    directory = vm.containerd.cell.directory / f"hosts-{vm.new_id()}"
    directory.mkdir()
    path = directory / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    yield path
    shutil.rmtree(directory)


def test_two_machines_and_a_container_of_runc_reach_each_other(vm: Box, network_image: str, hosts: Path) -> None:
    """By IPv4, by IPv6, and by name once the hosts file that all have has their names."""
    net = cni.bridge()
    mount = ("--mount", f"type=bind,src={hosts},dst=/etc/hosts,options=rbind:rw")
    with ExitStack() as stack:
        stack.enter_context(cni.configured(vm, net))
        peers = [_machine(stack, vm, net, network_image, mount), _machine(stack, vm, net, network_image, mount)]
        runc = Box(vm.containerd, "runc")
        joined = stack.enter_context(attached(vm, net))
        shell = stack.enter_context(inside(runc, *joined.options, *mount, image=network_image))
        peers.append(_Peer(f"n{shell.container}", shell, joined.ip4, joined.ip6))
        _assert_all_reach_all(peers, [address for peer in peers for address in (peer.ip4, peer.ip6)])
        # In place, as nerdctl does: a bind mount of the file goes on.
        with hosts.open("a") as file:
            file.write("".join(f"{address} {peer.name}\n" for peer in peers for address in (peer.ip4, peer.ip6)))
        for peer in peers:
            eventually(partial(_has, peer.shell, peers[-1].name), f"{peer.name} has the names", _DEADLINE_S)
        _assert_all_reach_all(peers, [peer.name for peer in peers])


def test_streams_stay_whole(vm: Box, network_image: str) -> None:
    """TCP both ways at once, and UDP up to what makes forty fragments; between machines, too."""
    net = cni.bridge()
    with ExitStack() as stack:
        stack.enter_context(cni.configured(vm, net))
        client = stack.enter_context(attached(vm, net))
        first, second = (_machine(stack, vm, net, network_image) for _ in range(2))
        first.shell.text(echo.SERVE)
        for address in (first.ip4, first.ip6):
            _assert_whole(client, address)
        second.shell.text("head -c 4000000 /dev/urandom >/tmp/sent")
        second.shell.text(f"socat -t 20 -b 65536 - TCP:{first.ip4}:{echo.PORT} </tmp/sent >/tmp/got")
        second.shell.text("cmp /tmp/sent /tmp/got")
        for peer in (first, second):
            assert "InCsumErrors 0" in peer.shell.text(_COUNTERS)


@pytest.mark.parametrize("mtu", [1450, 9000])
def test_the_mtu_arrives(vm: Box, network_image: str, mtu: int) -> None:
    """The largest datagram that fits goes through in one piece, and one byte more in two."""
    net = cni.bridge(mtu=mtu)
    with ExitStack() as stack:
        stack.enter_context(cni.configured(vm, net))
        client = stack.enter_context(attached(vm, net))
        _tell_again(vm, net.link, mtu)
        machine = _machine(stack, vm, net, network_image)
        assert machine.shell.number("cat /sys/class/net/eth0/mtu") == mtu
        machine.shell.text(echo.SERVE)
        echo.ready(client.netns, machine.ip4)
        echo.udp(client.netns, machine.ip4, (mtu - 28,))
        assert "ReasmReqds 0" in machine.shell.text(_COUNTERS)
        echo.udp(client.netns, machine.ip4, (mtu - 27,))
        assert "ReasmReqds 2" in machine.shell.text(_COUNTERS)
        echo.tcp(client.netns, machine.ip4, 3_000_000)


# "InCsumErrors 0" and the like, summed over protocols of IPv4 where several have it.
_COUNTERS = (
    "awk '{ if ($1 == last) { for (i = 2; i <= NF; i++) sum[names[i]] += $i } else split($0, names) ; last = $1 }"
    " END { for (name in sum) print name, sum[name] }' /proc/net/snmp"
)


def _tell_again(vm: Box, link: str, mtu: int) -> None:
    """Set a bridge's MTU to what it is.

    One that is made with more than 1500 has fragments put together by br_netfilter and does not get them into pieces
    again, for any container: its route of its own begins with an MTU of 1500, and follows changes alone
    (net/bridge/br_nf_core.c, br_dst_default_metrics; br_device.c, br_change_mtu).
    """
    for value in (mtu - 1, mtu):
        cni.run(vm.containerd.cell, "ip", "link", "set", link, "mtu", str(value))


def _has(shell: Inside, name: str) -> bool:
    return shell.do(f"grep -q {name} /etc/hosts")[0] == 0


def _machine(stack: ExitStack, vm: Box, net: cni.Net, image: str, options: tuple[str, ...] = ()) -> _Peer:
    """One with the network of the configuration."""
    shell = stack.enter_context(inside(vm, *net.options, *options, image=image))
    ip4, ip6 = cni.addresses(vm, net, cni.cni_id(shell.container))
    return _Peer(f"n{shell.container}", shell, ip4, ip6)


def _assert_all_reach_all(peers: list[_Peer], names: list[str]) -> None:
    for peer in peers:
        for name in names:
            peer.shell.text(f"ping -c 1 -W 10 {name}")


def _assert_whole(client: Attached, address: str) -> None:
    echo.ready(client.netns, address)
    for size in _TCP_SIZES:
        echo.tcp(client.netns, address, size)
    echo.udp(client.netns, address, _UDP_SIZES)
