"""Netlink in bytes: what is told comes back as it was, and whatever the kernel might say is read or refused."""

import errno
import socket
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.guest_pb2 import Address, Route, Rule
from vminitd.errors import RequestError
from vminitd.network.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    Request,
    attribute,
    attributes,
    batch,
    messages,
    nested,
    number,
    text,
    verdict,
)
from vminitd.network.queues import channels
from vminitd.network.requests import Prefix, add_address, add_route, add_rule, mac_bytes, prefix

bodies = st.binary(max_size=70)
kinds = st.integers(1, 0x3FFF)


@given(st.dictionaries(kinds, st.binary(max_size=300)))
def test_attributes_come_back(values: dict[int, bytes]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in values.items())
    assert len(data) % 4 == 0
    assert {kind: bytes(value) for kind, value in attributes(memoryview(data)).items()} == values


@given(st.dictionaries(kinds, st.integers(0, 2**32 - 1)), kinds)
def test_so_do_nested_ones(values: dict[int, int], outer: int) -> None:
    data = nested(outer, *(number(kind, value) for kind, value in values.items()))
    (inner,) = attributes(memoryview(data)).values()
    assert {kind: struct.unpack("=I", value)[0] for kind, value in attributes(inner).items()} == values


def test_a_text_ends_with_nul() -> None:
    assert text(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0" + bytes(3)


@given(
    st.lists(st.tuples(st.integers(16, 100), st.sampled_from((0, NLM_F_CREATE)), bodies), min_size=1), st.integers(1, 9)
)
def test_a_batch_is_its_requests_and_asks_for_one_answer(asked: list[tuple[int, int, bytes]], first: int) -> None:
    requests = [Request(kind, flags, body, "") for kind, flags, body in asked]
    found = list(messages(batch(requests, first)))
    assert [(each.kind, bytes(each.body)) for each in found] == [(kind, body) for kind, _, body in asked]
    assert [each.sequence for each in found] == list(range(first, first + len(asked)))
    assert [each.flags & ~NLM_F_ACK for each in found] == [flags | NLM_F_REQUEST for _, flags, _ in asked]
    assert [bool(each.flags & NLM_F_ACK) for each in found] == [False] * (len(asked) - 1) + [True]


@given(st.binary(max_size=100))
def test_garbage_is_a_value_error(data: bytes) -> None:
    with suppress(ValueError):
        for message in messages(data):
            verdict(message)
            attributes(message.body)


@given(st.sampled_from((NLMSG_ERROR, NLMSG_DONE)), st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_so_is_an_answer_that_is_none(kind: int, flags: int, body: bytes) -> None:
    with suppress(ValueError):
        assert verdict(Message(kind, flags, 1, memoryview(body))) is not None


def answer(code: int, explanation: bytes) -> Message:
    """As af_netlink.c, netlink_ack(), makes it."""
    request = struct.pack("=IHHII", 16 + 5, 24, 5, 7, 0)
    tail = attribute(1, explanation) if explanation else b""
    return Message(
        NLMSG_ERROR, 0x100 | 0x200 * bool(explanation), 7, memoryview(struct.pack("=i", -code) + request + tail)
    )


def test_what_an_answer_says() -> None:
    assert verdict(answer(0, b"")) == (7, 0, "")
    assert verdict(answer(errno.EPERM, b"")) == (7, errno.EPERM, "Operation not permitted")
    said = verdict(answer(errno.EINVAL, b"Nexthop has invalid gateway\0"))
    assert said == (7, errno.EINVAL, "Invalid argument (Nexthop has invalid gateway)")
    assert verdict(answer(0, b"a warning\0")) == (7, 0, "")


def test_a_message_of_another_kind_is_no_answer() -> None:
    assert verdict(Message(16, 0, 1, memoryview(b""))) is None


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
