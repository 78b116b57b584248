"""One trace of a container, from containerd's call into the guest, with a collector that is there or is not."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from harness.box import Box
from harness.collector import Collector, Received
from harness.containerd import Containerd
from harness.deadline import eventually
from harness.qemubox import Sections

_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
_TASK = "containerd.task.v"


@contextmanager
def _with(containerd: Containerd, environment: Mapping[str, str]) -> Iterator[None]:
    """containerd, and so every `start`, with that in its environment."""
    before = dict(containerd.environment)
    containerd.environment.update(environment)
    containerd.stop()
    containerd.start()
    try:
        yield
    finally:
        containerd.environment.clear()
        containerd.environment.update(before)
        containerd.stop()
        containerd.start()


def _call(spans: list[Received], method: str) -> Received:
    (found,) = [span for span in spans if span.name.startswith(_TASK) and span.name.endswith(f".Task/{method}")]
    return found


def _below(spans: list[Received], parent: Received) -> list[Received]:
    return sorted((span for span in spans if span.parent_id == parent.span_id), key=lambda span: span.begin_ns)


def _assert_nested(spans: list[Received]) -> None:
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    for span in spans:
        assert span.begin_ns <= span.end_ns, span
        if parent := by_id.get(span.parent_id):
            assert parent.trace_id == span.trace_id
            assert parent.begin_ns <= span.begin_ns, (parent, span)
            assert span.end_ns <= parent.end_ns, (parent, span)


def _ours(collector: Collector, container: str) -> list[Received]:
    """Those of the container's shim; newer containerds send their own to the same place."""
    return [span for span in collector.spans if span.resource.get("container.id") == container]


def _named(collector: Collector, container: str, method: str) -> list[Received]:
    return [span for span in _ours(collector, container) if span.name.endswith(f".Task/{method}")]


def _await_all(collector: Collector, container: str) -> None:
    """Return once the last call's are there."""
    eventually(lambda: _named(collector, container, "Delete") != [], "all spans are there", 20)


def _run_traced(box: Box, collector: Collector, environment: Mapping[str, str]) -> list[Received]:
    container = box.new_id()
    with _with(box.containerd, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **environment}):
        began_ns = time.time_ns()
        assert box.run("echo", "hello", container=container).checked().text == "hello"
        eventually(
            lambda: any(span.name.endswith("/Delete") for span in _ours(collector, container)),
            "all spans are there",
            20,
        )
    spans = _ours(collector, container)
    assert all(began_ns <= span.begin_ns <= span.end_ns <= time.time_ns() for span in spans)
    return spans


def _assert_whole(spans: list[Received]) -> None:
    """Create with its phases, Start, Delete; and the guest's part of each, below."""
    _assert_nested(spans)
    create = _call(spans, "Create")
    below = [span.name for span in _below(spans, create)]
    assert {"rootfs ready", "furnishing", "furnished", "answered", "created"} <= {*below}
    order = [name for name in below if name in ("rootfs ready", "furnishing", "furnished", "answered", "created")]
    assert order == ["rootfs ready", "furnishing", "furnished", "answered", "created"]
    for call, method, phases in (
        (create, "Configure", {"configured"}),
        (create, "Create", {"mounted", "created"}),
        (_call(spans, "Start"), "Start", {"started"}),
    ):
        (asked,) = [span for span in _below(spans, call) if span.name == f"guest {method}"]
        (inside,) = _below(spans, asked)
        assert inside.name == f"vminitd {method}"
        assert phases <= {span.name for span in _below(spans, inside)}, _below(spans, inside)
    assert _call(spans, "Start").begin_ns >= create.end_ns
    assert _call(spans, "Delete").begin_ns >= _call(spans, "Start").end_ns
    assert not any(span.failed for span in spans)


@pytest.mark.every_containerd
def test_the_environment_s_trace(vm: Box) -> None:
    """TRACEPARENT is the parent of every call that names none."""
    with Collector(vm.containerd.cell.netns) as collector:
        spans = _run_traced(vm, collector, {"TRACEPARENT": f"00-{_TRACE}-{_SPAN}-01", "OTEL_SERVICE_NAME": "a shim"})
    _assert_whole(spans)
    assert {span.resource["service.name"] for span in spans} == {"a shim"}
    if vm.containerd.flavour.name == "1.6":  # it names no parent of its own
        assert {span.trace_id for span in spans} == {_TRACE}
        assert {span.parent_id for span in spans if span.name.startswith(_TASK)} == {_SPAN}


@pytest.mark.on("2")
def test_containerd_s_trace(vm: Box) -> None:
    """The span of containerd's own call is the parent of ours: one trace from its API into the guest."""
    container = vm.new_id()

    def parents() -> list[Received]:
        ids = [span.parent_id for span in _ours(collector, container) if span.name.endswith(".Task/Create")]
        return [span for span in collector.spans if span.span_id in ids]

    with Collector(vm.containerd.cell.netns) as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        with _with(vm.containerd, environment):
            assert vm.run("echo", "hello", container=container).checked().text == "hello"
            _await_all(collector, container)
            eventually(lambda: parents() != [], "containerd sends its own", 20)
        spans = _ours(collector, container)
        (parent,) = parents()
    _assert_whole(spans)
    create = _call(spans, "Create")
    assert parent.trace_id == create.trace_id
    assert parent.resource["service.name"] == "containerd"
    assert {span.resource["service.name"] for span in spans} == {"qemubox-shim"}
    assert parent.begin_ns <= create.begin_ns <= create.end_ns <= parent.end_ns


@pytest.mark.release
def test_an_exec_s_spans(vm: Box) -> None:
    """Its Start, and below that what the guest was asked for and did."""
    with (
        Collector(vm.containerd.cell.netns) as collector,
        _with(vm.containerd, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}),
    ):
        container = vm.start("sleep", "100")
        assert vm.containerd.ctr("tasks", "exec", "--exec-id", "x", container, "/no/such/program").code != 0
        vm.kill(container)
        vm.wait_stopped(container)
        vm.delete_task(container).checked()
        vm.remove(container).checked()
        eventually(lambda: _named(collector, container, "Shutdown") != [], "all spans are there", 20)
        spans = _ours(collector, container)
        _, failed = sorted(_named(collector, container, "Start"), key=lambda span: span.begin_ns)
    _assert_nested(spans)
    assert failed.failed
    below = _below(spans, failed)
    assert [span.name for span in below][:2] == ["guest Exec", "guest Start"]
    assert [span.failed for span in below][:2] == [False, True]


@pytest.mark.release
def test_the_guest_s_lines_name_the_trace(vm: Box) -> None:
    changes: Sections = {"log": {"level": "debug"}, "vm": {"kernel_args": "loglevel=8"}}
    environment = {"TRACEPARENT": f"00-{_TRACE}-{_SPAN}-01"}
    with (
        Collector(vm.containerd.cell.netns) as collector,
        vm.qemubox.changed(changes),
        _with(
            vm.containerd,
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **environment},
        ),
    ):
        container = vm.start("sleep", "100")
        (console,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/console")
        said = console.read_text(errors="replace")
        vm.kill(container)
        vm.wait_stopped(container)
        vm.delete_task(container).checked()
        vm.remove(container).checked()
        eventually(
            lambda: any(span.name.endswith("/Delete") for span in _ours(collector, container)), "all is sent", 20
        )
        create = _call(_ours(collector, container), "Create")
    (line,) = [line for line in said.splitlines() if "vminitd: created " in line]
    assert f"trace={create.trace_id}" in line


@pytest.mark.parametrize("stalled", [False, True], ids=["away", "stalled"])
def test_a_collector_that_does_not_take_spans_delays_nobody(vm: Box, stalled: bool) -> None:
    """The exporter itself would wait for a day."""
    container = vm.new_id()
    with Collector(vm.containerd.cell.netns, stalled=stalled) as collector:
        endpoint = collector.endpoint if stalled else "http://127.0.0.1:9"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "86400"}
        with _with(vm.containerd, environment):
            assert vm.run("echo", "hello", container=container).checked().text == "hello"
            eventually(lambda: not vm.processes(f"-id {container} ", "containerd-shim-"), "the shim has ended", 20)
        assert collector.asked.is_set() is stalled
