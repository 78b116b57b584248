"""What either side says to the kernel is read by pyroute2 as it was meant: a library that others have proven.

The codec is our own because of what a library costs at each start (docs/decisions/0021, 0022).
"""

import socket
import sys
from ipaddress import IPv6Address
from types import ModuleType
from typing import Protocol, cast

from hypothesis import given
from hypothesis import strategies as st
from pyroute2 import netlink as constants
from pyroute2.netlink import nlmsg
from pyroute2.netlink import rtnl as constants_of_rtnl
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from api.guest_pb2 import Address, Neighbour, Route, Rule
from netlink import message as codec
from netlink import rtnl
from netlink.message import Request, packed
from shim.network import redirect
from vminitd.network import requests

KINDS = (fibmsg, ifaddrmsg, ifinfmsg, ndmsg, rtmsg)
IPV4 = st.ip_addresses(v=4).map(str)
# Global ones: pyroute2 writes the few that hold one of IPv4 in another way.
IPV6 = st.integers(0x2001 << 112, (0x2002 << 112) - 1).map(lambda number: str(IPv6Address(number)))
NUMBER = st.integers(1, 2**32 - 1)
NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-_", min_size=1, max_size=15)
MAC = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))


class Message(Protocol):
    """A decoded message."""

    def get_attr(self, name: str) -> object: ...

    def __getitem__(self, name: str) -> object: ...


def read(kind: type, body: bytes) -> Message:
    """A message of pyroute2's class `kind`, of a body without its header."""
    message = kind(packed(0, 0, 0, body))
    assert isinstance(message, nlmsg)
    message.decode()  # type: ignore[no-untyped-call]
    return cast("Message", message)


def inside(message: Message, *names: str) -> Message:
    """What is nested in it, by the attributes' names."""
    for name in names:
        message = cast("Message", message.get_attr(name))
    return message


def body(request: Request) -> bytes:
    """Its body."""
    return request.body


@given(index=st.integers(1, 2**31 - 1), name=NAME, mtu=st.integers(68, 65535), length=NUMBER)
def test_a_link_of_the_guest_s(index: int, name: str, mtu: int, length: int) -> None:
    request = requests.set_link(index, "", name=name, mtu=mtu, tx_queue_length=length, link_local=False)
    message = read(ifinfmsg, body(request))
    assert message["index"] == index
    found = [message.get_attr(f"IFLA_{each}") for each in ("IFNAME", "MTU", "TXQLEN")]
    assert found == [name, mtu, length]


@given(written=IPV4 | IPV6, peer=st.booleans(), scope=st.sampled_from((0, 253)))
def test_an_address(written: str, peer: bool, scope: int) -> None:
    length = 64 if ":" in written else 24
    address = Address(address=f"{written}/{length}", peer=written if peer else "", scope=scope)
    message = read(ifaddrmsg, body(requests.add_address(7, "eth0", address, ())))
    assert (message["index"], message["prefixlen"], message["scope"]) == (7, length, scope)
    assert message.get_attr("IFA_LOCAL") == message.get_attr("IFA_ADDRESS") == written


@given(gateway=IPV4 | IPV6, metric=NUMBER, table=NUMBER, mtu=st.integers(68, 65535))
def test_a_route(gateway: str, metric: int, table: int, mtu: int) -> None:
    family = 6 if ":" in gateway else 4
    to = "fd00:1::/32" if family == 6 else "10.0.0.0/8"
    route = Route(
        destination=to, gateway=gateway, family=family, metric=metric, table=table, mtu=mtu, on_link=True, scope=0
    )
    message = read(rtmsg, body(requests.add_route(route, 3)))
    assert (message["dst_len"], message["type"], message["flags"]) == (int(to.partition("/")[2]), 1, 4)
    found = [message.get_attr(f"RTA_{each}") for each in ("DST", "GATEWAY", "OIF", "PRIORITY", "TABLE")]
    assert found == [to.partition("/")[0], gateway, 3, metric, table]
    assert inside(message, "RTA_METRICS").get_attr("RTAX_MTU") == mtu


@given(source=IPV4, priority=NUMBER, table=NUMBER, name=NAME, mark=NUMBER)
def test_a_rule(source: str, priority: int, table: int, name: str, mark: int) -> None:
    rule = Rule(family=4, priority=priority, table=table, source=f"{source}/32", input=name, mark=mark, mask=mark)
    message = read(fibmsg, body(requests.add_rule(rule)))
    assert (message["family"], message["src_len"], message["action"]) == (socket.AF_INET, 32, 1)
    words = ("SRC", "PRIORITY", "TABLE", "IIFNAME", "FWMARK", "FWMASK")
    assert [message.get_attr(f"FRA_{each}") for each in words] == [source, priority, table, name, mark, mark]


@given(address=IPV4 | IPV6, mac=MAC)
def test_a_neighbour(address: str, mac: str) -> None:
    message = read(ndmsg, body(requests.add_neighbour(5, "eth0", Neighbour(address=address, mac=mac))))
    assert (message["ifindex"], message["state"]) == (5, 0x80)
    assert (message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")) == (address, mac)


@given(index=st.integers(1, 2**31 - 1), to=st.integers(1, 2**31 - 1))
def test_a_redirect(index: int, to: int) -> None:
    qdisc = read(tcmsg, redirect._qdisc(index))
    assert (qdisc["index"], qdisc["parent"], qdisc.get_attr("TCA_KIND")) == (index, 0xFFFFFFF1, "ingress")
    message = read(tcmsg, redirect._filter(index, to))
    assert (message["index"], message.get_attr("TCA_KIND")) == (index, "u32")
    action = inside(message, "TCA_OPTIONS", "TCA_U32_ACT", "TCA_ACT_PRIO_1")
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    parameters = inside(action, "TCA_ACT_OPTIONS", "TCA_MIRRED_PARMS")
    assert (parameters["eaction"], parameters["ifindex"], parameters["action"]) == (1, to, 4)


def test_numbers_have_the_kernel_s_names() -> None:
    theirs = _numbers(constants, constants_of_rtnl, *(sys.modules[kind.__module__] for kind in KINDS))
    for kind in KINDS:
        # A kind's attributes by their place, or with their numbers where some are missing.
        for place, (*number, name, _) in enumerate(kind.nla_map):
            theirs[str(name)] = int(number[0]) if number else place
    ours = _numbers(codec, rtnl)
    both = ours.keys() & theirs.keys()
    assert len(both) > 60
    assert {name: ours[name] for name in both} == {name: theirs[name] for name in both}


def _numbers(*modules: ModuleType) -> dict[str, int]:
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, int)
    }
