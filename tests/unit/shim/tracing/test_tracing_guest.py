"""What the guest says of its time, and what becomes of it: within the call, and never much."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import guest_pb2
from api.guest_ttrpc import ContainersBase, ContainersStub
from shim.tracing.guest import MILESTONES_MAX, NAME_MAX, GuestClient, parted
from shim.tracing.span import SPANS_MAX, Span, Tree, during
from shim.vm.timeline import boottime_ns
from ttrpc import Context, Server

_NS = st.integers(-(1 << 63), (1 << 63) - 1)


def test_the_time_between_milestones() -> None:
    whole, parts = parted((10, 50), [("booted", 5), ("mounted", 20), ("created", 40)], within=(0, 100))
    assert whole == (10, 50)
    assert parts == [("mounted", 10, 20), ("created", 20, 40)]


@given(st.tuples(_NS, _NS), st.lists(st.tuples(st.text(max_size=100), _NS), max_size=20), st.tuples(_NS, _NS))
def test_whatever_the_guest_says_is_within_its_call(
    whole: tuple[int, int], milestones: list[tuple[str, int]], within: tuple[int, int]
) -> None:
    within = (min(within), max(within))
    (begin, end), parts = parted(whole, milestones, within=within)
    assert within[0] <= begin <= end <= within[1]
    at = begin
    for name, part_begin, part_end in parts:
        assert at == part_begin <= part_end <= end
        assert len(name) <= NAME_MAX
        assert name.isprintable()
        at = part_end


class Vminitd(ContainersBase):
    """Says what the test wants."""

    def __init__(self) -> None:
        self.response = guest_pb2.CreateResponse()
        self.metadata: list[dict[str, list[str]]] = []

    async def Create(self, request: guest_pb2.CreateRequest, context: Context) -> guest_pb2.CreateResponse:
        self.metadata.append({key: list(values) for key, values in context.metadata.items()})
        return self.response


class Guest:
    """A vminitd behind a client."""

    def __init__(self, client: GuestClient, vminitd: Vminitd) -> None:
        self.vminitd = vminitd
        self.containers = ContainersStub(client)


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    vminitd = Vminitd()
    server = Server([vminitd])
    serving = asyncio.create_task(server.serve(theirs))
    client = GuestClient(ours)
    yield Guest(client, vminitd)
    await client.close()
    await server.close(0)
    await serving


def _root() -> Span:
    return Span(Tree(None), "call", None, kind="SERVER", begin_ns=boottime_ns())


async def test_the_guest_is_told_whose_work_it_does(guest: Guest) -> None:
    root = _root()
    guest.vminitd.response = guest_pb2.CreateResponse(
        milestones=[guest_pb2.Milestone(name="mounted", boottime_ns=1_050)], boottime_ns=1_100, began_ns=1_000
    )
    with during(root):
        await guest.containers.Create(guest_pb2.CreateRequest())
    call, inside, phase = root.tree.spans[1:]
    assert guest.vminitd.metadata == [{"traceparent": [call.traceparent]}]
    assert (call.name, inside.name, phase.name) == ("guest Create", "vminitd Create", "mounted")
    assert (call.parent, inside.parent, phase.parent) == (root, call, inside)
    assert inside.end_ns - inside.begin_ns == 100
    assert phase.end_ns - phase.begin_ns == 50
    assert root.begin_ns <= call.begin_ns <= inside.begin_ns <= phase.end_ns <= inside.end_ns <= call.end_ns


async def test_outside_of_a_call_it_is_told_nothing(guest: Guest) -> None:
    await guest.containers.Create(guest_pb2.CreateRequest())
    assert guest.vminitd.metadata == [{}]


async def test_a_guest_without_times_has_no_spans(guest: Guest) -> None:
    root = _root()
    with during(root):
        await guest.containers.Create(guest_pb2.CreateRequest())
    assert [span.name for span in root.tree.spans] == ["call", "guest Create"]


async def test_a_talkative_guest_is_not_heard_to_the_end(guest: Guest) -> None:
    root = _root()
    with during(root):
        for now in range(1, 21):
            at_ns = now * 10**10  # a clock that runs faster than ours: each answer is the one that counts
            milestones = [guest_pb2.Milestone(name="\n" * 500, boottime_ns=at_ns - n) for n in range(2_000, 0, -1)]
            guest.vminitd.response = guest_pb2.CreateResponse(
                milestones=milestones, boottime_ns=at_ns, began_ns=at_ns - 3_000
            )
            await guest.containers.Create(guest_pb2.CreateRequest())
    assert len(root.tree.spans) == SPANS_MAX
    names = {span.name for span in root.tree.spans}
    assert names == {"call", "guest Create", "vminitd Create", "?" * NAME_MAX}
    assert sum(span.parent is root.tree.spans[2] for span in root.tree.spans) == MILESTONES_MAX


async def test_a_clock_that_makes_no_sense_stays_within_the_call(guest: Guest) -> None:
    root = _root()
    with during(root):
        for began, now in ((5_000, 1), (1, (1 << 63) - 1), (-5, -(1 << 62))):
            guest.vminitd.response = guest_pb2.CreateResponse(boottime_ns=now, began_ns=began)
            await guest.containers.Create(guest_pb2.CreateRequest())
    for span in root.tree.spans[1:]:
        assert span.parent is not None
        assert span.parent.begin_ns <= span.begin_ns <= span.end_ns <= span.parent.end_ns
