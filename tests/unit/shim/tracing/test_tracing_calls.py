"""Calls become spans, with what they did below them, and those that nobody wants do not."""

import asyncio
import socket
from collections.abc import Mapping

import pytest
from google.protobuf.empty_pb2 import Empty

from api import task_pb2
from api.task_ttrpc import TaskBase, TaskStub
from shim.tracing.export import Exporter
from shim.tracing.phases import phases_of
from shim.tracing.server import TracedService
from shim.tracing.span import Span, Tree, current, during
from shim.tracing.traceparent import Parent, render
from shim.tracing.tracer import Tracer
from shim.vm.timeline import Timeline, boottime_ns
from ttrpc import Client, Code, Context, Server, StatusError

_PARENT = Parent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
_METADATA = {"traceparent": render(*_PARENT[:2], recorded=True)}


class Kept(Exporter):
    """Sends nothing."""

    def __init__(self) -> None:
        self.trees: list[Tree] = []

    def put(self, tree: Tree) -> None:
        self.trees.append(tree)

    def close(self, deadline_s: float) -> None:
        self.trees.clear()


class Task(TaskBase):
    """A task service that works with and without tracing."""

    def __init__(self) -> None:
        self.later: asyncio.Task[None] | None = None
        self.go_on = asyncio.Event()

    async def Create(self, request: task_pb2.CreateTaskRequest, context: Context) -> task_pb2.CreateTaskResponse:
        timeline = Timeline()
        timeline.mark("chosen", boottime_ns() - 5_000_000)
        with phases_of(timeline):
            timeline.mark("rootfs ready")
            timeline.mark("created")
        self.later = asyncio.create_task(self._later())
        return task_pb2.CreateTaskResponse(pid=5)

    async def _later(self) -> None:
        """What goes on for as long as the container does."""
        await self.go_on.wait()
        span = current()
        assert span is not None
        with during(span.child("late")):
            pass

    async def Start(self, request: task_pb2.StartRequest, context: Context) -> task_pb2.StartResponse:
        raise StatusError(Code.NOT_FOUND, "container c not found")

    async def Kill(self, request: task_pb2.KillRequest, context: Context) -> Empty:
        raise ValueError("unforeseen")

    async def State(self, request: task_pb2.StateRequest, context: Context) -> task_pb2.StateResponse:
        return task_pb2.StateResponse(pid=5)


class Shim:
    """The service behind ttrpc, with spans or without."""

    def __init__(self, parent: Parent | None = None) -> None:
        self.kept = Kept()
        self.task = Task()
        self._parent = parent

    async def __aenter__(self) -> TaskStub:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        service = TracedService(self.task, Tracer(self._parent, self.kept))
        self._server = Server([service], aliases={"containerd.task.v2.Task": "containerd.task.v3.Task"})
        self._serving = asyncio.create_task(self._server.serve(theirs))
        self._client = Client(ours)
        return TaskStub(self._client)

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()
        await self._server.close(0)
        await self._serving


def _names(tree: Tree) -> list[str]:
    return [span.name for span in tree.spans]


async def test_a_create_and_its_phases() -> None:
    shim = Shim()
    async with shim as task:
        assert (await task.Create(task_pb2.CreateTaskRequest(id="c"), metadata=_METADATA, timeout_s=20)).pid == 5
        (tree,) = shim.kept.trees
        assert _names(tree) == ["containerd.task.v3.Task/Create", "rootfs ready", "created"]
        call, first, second = tree.spans
        assert (tree.parent, tree.trace_id, tree.recorded) == (_PARENT, _PARENT.trace_id, True)
        assert call.begin_ns <= first.begin_ns <= first.end_ns == second.begin_ns <= second.end_ns <= call.end_ns
        assert first.parent is second.parent is call
        assert int(call.attributes["qemubox.prelaunch_ms"]) >= 5
        assert call.attributes["rpc.method"] == "Create"
        assert call.error == ""


async def test_what_goes_on_after_a_call_adds_nothing_to_it() -> None:
    shim = Shim()
    async with shim as task:
        await task.Create(task_pb2.CreateTaskRequest(id="c"), metadata=_METADATA, timeout_s=20)
        shim.task.go_on.set()
        assert shim.task.later is not None
        await shim.task.later
        assert "late" not in _names(shim.kept.trees[0])


@pytest.mark.parametrize("metadata", [{}, {"traceparent": "nonsense"}])
async def test_the_parent_of_a_call_that_names_none(metadata: Mapping[str, str]) -> None:
    for parent in (None, _PARENT):
        shim = Shim(parent)
        async with shim as task:
            with pytest.raises(StatusError):
                await task.Start(task_pb2.StartRequest(id="c"), metadata=metadata, timeout_s=20)
            (tree,) = shim.kept.trees
            assert tree.parent == parent
            assert (tree.trace_id == _PARENT.trace_id) is (parent is not None)


async def test_a_failure_is_the_span_s() -> None:
    shim = Shim()
    async with shim as task:
        with pytest.raises(StatusError):
            await task.Start(task_pb2.StartRequest(id="c"), timeout_s=20)
        with pytest.raises(StatusError):
            await task.Kill(task_pb2.KillRequest(id="c"), timeout_s=20)
        (known,), (unforeseen,) = (tree.spans for tree in shim.kept.trees)
    assert known.error == "container c not found"
    assert known.attributes["rpc.grpc.status_code"] == int(Code.NOT_FOUND)
    assert unforeseen.error == "ValueError: unforeseen"


async def test_a_question_is_a_span_only_in_somebody_s_trace() -> None:
    shim = Shim()
    async with shim as task:
        await task.State(task_pb2.StateRequest(id="c"), timeout_s=20)
        assert shim.kept.trees == []
        await task.State(task_pb2.StateRequest(id="c"), metadata=_METADATA, timeout_s=20)
        assert [_names(tree) for tree in shim.kept.trees] == [["containerd.task.v3.Task/State"]]


async def test_what_has_not_ended_ends_with_its_call() -> None:
    tracer = Tracer(None, kept := Kept())
    with tracer.call("/a.B/Start", {}) as span:
        assert span is not None
        given_up = span.child("given up")
    assert given_up is not None
    (tree,) = kept.trees
    assert given_up.end_ns == span.end_ns
    assert span.child("too late") is None
    assert tree.ended


def test_without_a_span_there_are_no_phases() -> None:
    timeline = Timeline()
    with phases_of(timeline):
        timeline.mark("created")
    assert current() is None


def test_a_failed_create_has_the_phases_that_it_came_to() -> None:
    root = Span(Tree(None), "call", None, kind="SERVER", begin_ns=boottime_ns())
    timeline = Timeline()

    def fail() -> None:
        with during(root), phases_of(timeline):
            timeline.mark("rootfs ready")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert _names(root.tree) == ["call", "rootfs ready"]
    assert root.error == "ValueError: no"
