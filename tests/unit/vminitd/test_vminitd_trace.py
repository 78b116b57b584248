"""A call that is part of a trace: its number in the debug lines, its times in the answer."""

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest
from google.protobuf.empty_pb2 import Empty

from api import guest_pb2
from api.guest_ttrpc import ContainersBase, ContainersStub
from ttrpc import Client, Context, Server
from vminitd import log, milestones, trace

_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_METADATA = {"traceparent": f"00-{_TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is logged, to be read from there."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    monkeypatch.setattr(log, "_sink", writer)
    monkeypatch.setattr(log, "_level", log.LEVELS["debug"])
    yield reader
    os.close(reader)
    os.close(writer)


class Containers(ContainersBase):
    """Says what it does."""

    async def Pause(self, request: guest_pb2.ContainerRequest, context: Context) -> Empty:
        log.debug("pausing", container=request.container_id, traced=str(trace.is_traced(context)))
        await asyncio.sleep(0)
        log.info("paused")
        return Empty()


async def _pause(metadata: dict[str, str] | None) -> None:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
    server = Server([trace.Traced(Containers())])
    serving = asyncio.create_task(server.serve(theirs))
    client = Client(ours)
    stub = ContainersStub(client)
    request = guest_pb2.ContainerRequest(container_id="c")
    await asyncio.gather(stub.Pause(request, metadata=metadata), stub.Pause(request))
    await client.close()
    await server.close(0)
    await serving


async def test_the_debug_lines_of_a_call_name_its_trace_and_no_other_s(lines: int) -> None:
    await _pause(_METADATA)
    said = sorted(os.read(lines, 4096).decode().splitlines())
    assert said == [
        "<6>vminitd: paused",
        "<6>vminitd: paused",
        "<7>vminitd: pausing container=c traced=False",
        f"<7>vminitd: pausing container=c traced=True trace={_TRACE}",
    ]


@pytest.mark.parametrize("text", ["", "00", "nonsense", "a-b-c", "a-b-c-d-e"])
async def test_what_names_no_trace(lines: int, text: str) -> None:
    await _pause({"traceparent": text})
    assert b"trace=" not in os.read(lines, 4096)


def test_the_times_of_a_call() -> None:
    milestones.mark("a test's")
    began = milestones.now_ns()
    milestones.mark("another of a test's")
    response = guest_pb2.StartResponse(pid=7)
    trace.tell(response, began)
    times = {item.name: item.boottime_ns for item in response.milestones}
    assert times["a test's"] <= response.began_ns == began
    assert began <= times["another of a test's"] <= response.boottime_ns
