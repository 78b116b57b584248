"""Whatever a guest says becomes something that the host can log, store and tell its clients."""

import time

import structlog
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from api import guest_pb2
from shim import untrusted

_INT64 = st.integers(-(2**63), 2**63 - 1)
_INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.text(), st.integers(1, 100))
def test_text_is_bounded_and_printable(text: str, limit: int) -> None:
    shown = untrusted.plain(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit + 40
    if text.isprintable() and len(text) <= limit:
        assert shown == text


def test_long_text_says_so() -> None:
    shown = untrusted.plain("x\n\x1b[31m" + "y" * (4 << 20))
    assert shown.startswith("x  [31myyy")
    assert shown.endswith("yyy... (4194311 characters)")
    assert len(shown) < untrusted.TEXT_LIMIT + 40


@given(st.integers(0, 2**32 - 1))
def test_a_status_is_one_that_a_process_can_have(number: int) -> None:
    """And a failure stays one: clients hand it to exit(3), of which the low 8 bits are left."""
    status = untrusted.status(number)
    assert 0 <= status <= 255
    assert (status == 0) == (number == 0)
    if number <= 255:
        assert status == number


@given(_INT64, _INT32)
def test_a_time_is_a_number(seconds: int, nanos: int) -> None:
    assert untrusted.nanoseconds(Timestamp(seconds=seconds, nanos=nanos)) == seconds * 10**9 + nanos


def test_an_ordinary_time() -> None:
    now = Timestamp()
    now.FromNanoseconds(at_ns := time.time_ns())
    assert untrusted.nanoseconds(now) == at_ns


@given(st.lists(st.tuples(st.text(), _INT64)))
def test_milestones_are_few_and_their_names_are_keys_of_a_log_line(said: list[tuple[str, int]]) -> None:
    found = untrusted.milestones([guest_pb2.Milestone(name=name, boottime_ns=at_ns) for name, at_ns in said])
    assert len(found) == min(len(said), untrusted.MILESTONE_LIMIT)
    assert [at_ns for _, at_ns in found] == [at_ns for _, at_ns in said[: len(found)]]
    assert all(len(name) <= untrusted.NAME_LIMIT for name, _ in found)
    line = structlog.processors.LogfmtRenderer()(None, "", {f"guest_{name}": 1 for name, _ in found})
    assert all(word.startswith("guest_") and word.endswith("=1") for word in line.split())
    assert line.isprintable()


def test_of_many_milestones_the_first_count() -> None:
    said = [guest_pb2.Milestone(name="n" * 5000, boottime_ns=number) for number in range(10_000)]
    found = untrusted.milestones(said)
    assert len(found) == untrusted.MILESTONE_LIMIT
    assert found[-1] == ("n" * untrusted.NAME_LIMIT, untrusted.MILESTONE_LIMIT - 1)


def test_ordinary_milestones_keep_their_names() -> None:
    said = [guest_pb2.Milestone(name=name, boottime_ns=5) for name in ("python", "waiting")]
    assert untrusted.milestones(said) == [("python", 5), ("waiting", 5)]
