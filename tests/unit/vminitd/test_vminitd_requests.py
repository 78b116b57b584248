"""What is no address, or does not go together, is refused with its value before the kernel hears of it."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.guest_pb2 import Address, Route, Rule
from vminitd.errors import RequestError
from vminitd.network.queues import channels
from vminitd.network.requests import Prefix, add_address, add_route, add_rule, mac_bytes, prefix


@given(st.ip_addresses(v=4).map(str), st.integers(0, 32))
def test_a_prefix_of_ipv4(address: str, length: int) -> None:
    found = prefix(f"{address}/{length}", "x")
    assert found == Prefix(socket.AF_INET, socket.inet_aton(address), length)
    network = int.from_bytes(found.network().address)
    assert network >> 32 - length == int.from_bytes(found.address) >> 32 - length
    assert network & (1 << 32 - length) - 1 == 0


@given(st.ip_addresses(v=6).map(str))
def test_an_address_alone_has_all_its_bits(address: str) -> None:
    assert prefix(address, "x") == (socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address), 128)


@pytest.mark.parametrize(
    "written", ["", "10.1.0", "10.1.0.5/33", "10.1.0.5/", "10.1.0.5/-1", "::/129", "fe80::1%eth0", "x", "1/²"]
)
def test_what_is_no_address_is_named(written: str) -> None:
    with pytest.raises(RequestError, match=r"^INVALID_ARGUMENT: x: '"):
        prefix(written, "x")


@pytest.mark.parametrize(
    "written",
    ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "0200:00:00:00:01:", "zz:00:00:00:00:01", "+1:00:00:00:00: 1"],
)
def test_what_is_no_mac_address_is_named(written: str) -> None:
    with pytest.raises(RequestError, match="is not a MAC address"):
        mac_bytes(written, "x")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Route(family=0), "route to all of IPv0: there is no IPv0"),
        (Route(destination="fd00::/8", family=4), "route to fd00::/8: fd00::/8 is not of its family"),
        (Route(family=4, source="::1"), "route to all of IPv4: ::1 is not of its family"),
        (Route(family=4, gateway="1.2.3"), "route to all of IPv4 via 1.2.3: '1.2.3' is not an IP address"),
        (
            Route(family=4, interface="eth0", table=7, gateway="x"),
            "route to all of IPv4 via x dev eth0 table 7: 'x' is not",
        ),
    ],
)
def test_a_route_that_contradicts_itself_is_named(message: Route, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        add_route(message, 1)
    assert caught.value.message.startswith(words)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Address(address="10.1.0.5/24", peer="::1"), "its peer ::1 is of another family"),
        (Address(address="10.1.0.5/24", broadcast="::1"), "::1 cannot be its broadcast address"),
        (Address(address="fd00::1/64", broadcast="10.1.0.255"), "10.1.0.255 cannot be its broadcast address"),
    ],
)
def test_so_is_an_address(message: Address, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        add_address(1, "eth0", message, ())
    assert caught.value.message == f"address {message.address} of interface eth0: {words}"


def test_and_a_rule() -> None:
    with pytest.raises(RequestError, match=r"rule 5 of IPv6, to table 7: 10\.0\.0\.0/8 is not of its family"):
        add_rule(Rule(family=6, priority=5, table=7, source="10.0.0.0/8"))


def test_queues_are_asked_for_in_pairs() -> None:
    assert channels(4) == struct.pack("=9I", 0x3D, 0, 0, 0, 0, 0, 0, 0, 4)
