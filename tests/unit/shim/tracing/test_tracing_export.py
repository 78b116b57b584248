"""Spans on their way to a collector: they arrive, or hold up nobody."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.collector import Collector
from shim.log import Logger, open_log
from shim.tracing.export import Exporter
from shim.tracing.traceparent import Parent
from shim.tracing.tracer import Tracer
from tests.unit.shim.observe import until

_PARENT = Parent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
_OTEL = "OTEL_EXPORTER_OTLP_ENDPOINT"
_ATTRIBUTES = {"container.id": "c", "containerd.namespace": "ns"}


class Log:
    """A log, and what it says."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.log: Logger = open_log(path, level="info", namespace="ns", container_id="c")

    @property
    def text(self) -> str:
        try:
            return os.read(self._fd, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path / "log")
    yield log
    log.close()


def _call(tracer: Tracer) -> None:
    with tracer.call("/containerd.task.v3.Task/Start", {}) as span:
        assert span is not None
        span.add("phase", span.begin_ns, span.begin_ns + 10)


def _sending() -> bool:
    return any(thread.name == "spans" for thread in threading.enumerate())


def test_they_arrive(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv(_OTEL, collector.endpoint)
        exporter = Exporter(_ATTRIBUTES, said.log)
        _call(Tracer(_PARENT, exporter))
        _call(Tracer(None, exporter))
        exporter.close(20)
        named, phase, alone, _ = collector.spans
    now = time.time_ns()
    assert (named.name, phase.name) == ("containerd.task.v3.Task/Start", "phase")
    assert (named.trace_id, named.parent_id) == _PARENT[:2]
    assert (phase.trace_id, phase.parent_id) == (named.trace_id, named.span_id)
    assert named.begin_ns == phase.begin_ns == phase.end_ns - 10
    assert now - 60 * 10**9 < named.begin_ns <= named.end_ns <= now
    assert alone.parent_id == ""
    assert alone.trace_id != named.trace_id
    assert named.resource["service.name"] == "qemubox-shim"
    assert named.resource["container.id"] == "c"
    assert said.text == ""


def test_the_environment_names_the_service_and_says_what_is_kept(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv(_OTEL, collector.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
        exporter = Exporter(_ATTRIBUTES, said.log)
        _call(Tracer(None, exporter))  # the sampler does not want it
        _call(Tracer(_PARENT._replace(recorded=False), exporter))  # nor does the caller
        _call(Tracer(_PARENT, exporter))
        exporter.close(20)
        assert [span.trace_id for span in collector.spans] == [_PARENT.trace_id] * 2
        assert collector.spans[0].resource["service.name"] == "mine"


def test_containerd_s_name_is_not_ours(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hands it on by accident."""
    with Collector() as collector:
        monkeypatch.setenv(_OTEL, collector.endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "containerd")
        exporter = Exporter(_ATTRIBUTES, said.log)
        _call(Tracer(None, exporter))
        exporter.close(20)
        assert collector.spans[0].resource["service.name"] == "qemubox-shim"


def test_a_collector_that_is_not_there_holds_up_nobody(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv(_OTEL, collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    exporter = Exporter(_ATTRIBUTES, said.log)
    begin = time.monotonic()
    for _ in range(1000):
        _call(Tracer(None, exporter))
    exporter.close(0.2)
    assert time.monotonic() - begin < 5
    assert said.text.count("spans are lost") == 1
    until(lambda: not _sending(), "the thread has given up")


def test_a_collector_that_does_not_answer_holds_up_nobody(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector(stalled=True) as collector:
        monkeypatch.setenv(_OTEL, collector.endpoint)
        exporter = Exporter(_ATTRIBUTES, said.log)
        _call(Tracer(None, exporter))
        assert collector.asked.wait(20)
        begin = time.monotonic()
        exporter.close(0.3)
        assert time.monotonic() - begin < 3
        assert "the last ones were not sent within 0.3 s" in said.text
    until(lambda: not _sending(), "the thread has given up")


def test_a_collector_that_refuses_is_told_of(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.endpoint}/elsewhere")
        exporter = Exporter(_ATTRIBUTES, said.log)
        _call(Tracer(None, exporter))
        exporter.close(20)
    assert "spans are lost" in said.text


def test_without_the_extra_it_is_said(said: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shim.tracing.otel", None)
    exporter = Exporter(_ATTRIBUTES, said.log)
    _call(Tracer(None, exporter))
    until(lambda: exporter._problem != "", "the thread has tried")
    exporter.close(20)
    assert "qemubox[otel] is not installed" in said.text


def test_nothing_to_send_begins_nothing(said: Log) -> None:
    Exporter(_ATTRIBUTES, said.log).close(20)


_SCRIPT = """
import sys
from shim.arguments import parse
from shim.identity import Identity
from shim.tracing import tracer
from shim.warm.service import _import_everything
_import_everything()
import shim.daemon
made = tracer.begin({environment!r}, Identity("/a", "ns", "c"), None)
print(made is not None, any(name.partition(".")[0] in ("opentelemetry", "requests") for name in sys.modules))
"""


@pytest.mark.parametrize(
    ("environment", "made"),
    [({"PATH": "/bin", "OTEL_SERVICE_NAME": "x"}, False), ({_OTEL: "http://127.0.0.1:1", "PATH": "/bin"}, True)],
)
def test_nothing_of_opentelemetry_is_imported_before_a_call_has_ended(environment: dict[str, str], made: bool) -> None:
    """Nor in the service, whatever the environment of a later `start` says."""
    run = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(environment=environment)],
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert run.stdout.split() == [str(made), "False"]
