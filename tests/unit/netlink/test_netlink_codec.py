"""Netlink in bytes: what is told comes back as it was, and whatever the kernel might say is read or refused."""

import errno
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlink.attribute import attribute, attributes, each_attribute, nested, number, string, text, u32
from netlink.message import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    Message,
    Request,
    batch,
    messages,
    packed,
    verdict,
)

bodies = st.binary(max_size=70)
kinds = st.integers(1, 0x3FFF)
numbers = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(kinds, st.binary(max_size=300))))
def test_attributes_are_read_as_written(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(kind, value) for kind, value in parts)
    assert len(data) % 4 == 0
    assert list(each_attribute(data)) == parts
    assert list(each_attribute(b"head" + data, 4)) == parts
    assert attributes(data) == dict(parts)


@given(st.dictionaries(kinds, numbers), kinds)
def test_so_are_nested_ones(values: dict[int, int], outer: int) -> None:
    data = nested(outer, *(u32(kind, value) for kind, value in values.items()))
    (inner,) = attributes(data).values()
    assert {kind: number(value) for kind, value in attributes(inner).items()} == values


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_and_texts(value: str) -> None:
    assert text(attributes(string(1, value))[1]) == value


def test_a_text_ends_with_nul() -> None:
    assert string(3, "eth0") == struct.pack("=HH", 9, 3) + b"eth0\0" + bytes(3)


def test_a_name_need_not_be_unicode() -> None:
    """The kernel takes any bytes for the name of an interface, and Python has them as surrogates."""
    assert attributes(string(3, "eth\udcff"))[3] == b"eth\xff\0"
    assert text(b"eth\xff\0") == "eth\N{REPLACEMENT CHARACTER}"


def test_numbers_of_other_widths() -> None:
    assert number(struct.pack("=B", 7)) == number(struct.pack("=H", 7)) == number(struct.pack("=Q", 7)) == 7
    assert number(None) == number(b"") == 0


@given(
    st.lists(st.tuples(st.integers(16, 100), st.sampled_from((0, NLM_F_CREATE)), bodies), min_size=1), st.integers(1, 9)
)
def test_a_batch_is_its_requests_and_asks_for_one_answer(asked: list[tuple[int, int, bytes]], first: int) -> None:
    requests = [Request(kind, flags, body, "") for kind, flags, body in asked]
    found = list(messages(batch(requests, first)))
    assert [(each.kind, each.body) for each in found] == [(kind, body) for kind, _, body in asked]
    assert [each.sequence for each in found] == list(range(first, first + len(asked)))
    assert [each.flags & ~NLM_F_ACK for each in found] == [flags | NLM_F_REQUEST for _, flags, _ in asked]
    assert [bool(each.flags & NLM_F_ACK) for each in found] == [False] * (len(asked) - 1) + [True]


@given(bodies)
def test_so_is_a_single_request(body: bytes) -> None:
    assert packed(24, NLM_F_ACK, 3, body) == batch([Request(24, 0, body, "")], 3)


@given(st.binary(max_size=100))
def test_garbage_is_an_error_of_the_system(data: bytes) -> None:
    """Whoever asks the kernel expects one."""
    with suppress(OSError):
        for message in messages(data):
            verdict(message)
            assert sum(len(value) + 4 for _, value in each_attribute(message.body)) <= len(message.body) + 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bytes(15), "a netlink message of 15 bytes"),
        (struct.pack("=IHHII", 15, 16, 0, 1, 0), "a netlink message that says 15 bytes, in 16"),
        (struct.pack("=IHHII", 17, 16, 0, 1, 0), "a netlink message that says 17 bytes, in 16"),
        (packed(NLMSG_ERROR, 0, 1, bytes(3)), "a netlink answer of 3 bytes"),
        (packed(16, 0, 1, struct.pack("=HH", 9, 1) + bytes(4)), "a netlink attribute that says 9 bytes, in 8"),
        (packed(16, 0, 1, struct.pack("=HH", 3, 1) + bytes(4)), "a netlink attribute that says 3 bytes, in 8"),
    ],
)
def test_it_is_named(data: bytes, words: str) -> None:
    with pytest.raises(OSError, match=f"{words}$") as caught:
        _ = [(verdict(message), attributes(message.body)) for message in messages(data)]
    assert caught.value.errno == errno.EBADMSG


@given(st.sampled_from((NLMSG_ERROR, NLMSG_DONE)), st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_so_is_an_answer_that_is_none(kind: int, flags: int, body: bytes) -> None:
    with suppress(OSError):
        assert verdict(Message(kind, flags, 1, body)) is not None


def answer(code: int, explanation: bytes) -> Message:
    """As af_netlink.c, netlink_ack(), makes it."""
    request = struct.pack("=IHHII", 16 + 5, 24, 5, 7, 0)
    tail = attribute(1, explanation) if explanation else b""
    return Message(NLMSG_ERROR, 0x100 | 0x200 * bool(explanation), 7, struct.pack("=i", -code) + request + tail)


def test_what_an_answer_says() -> None:
    assert verdict(answer(0, b"")) == (0, "")
    assert verdict(answer(errno.EPERM, b"")) == (errno.EPERM, "Operation not permitted")
    said = verdict(answer(errno.EINVAL, b"Nexthop has invalid gateway\0"))
    assert said == (errno.EINVAL, "Invalid argument (Nexthop has invalid gateway)")
    assert verdict(answer(0, b"a warning\0")) == (0, "")


def test_the_end_of_a_dump_says_it_too() -> None:
    assert verdict(Message(NLMSG_DONE, 0, 1, bytes(4))) == (0, "")
    body = struct.pack("=i", -errno.EINVAL) + attribute(1, b"Invalid values in header\0")
    said = verdict(Message(NLMSG_DONE, 0x200, 1, body))
    assert said == (errno.EINVAL, "Invalid argument (Invalid values in header)")


def test_a_message_of_another_kind_is_no_answer() -> None:
    assert verdict(Message(16, 0, 1, b"")) is None
