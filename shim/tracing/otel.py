"""Spans that have been, made OpenTelemetry's and sent: all that knows its SDK.

Imported by the thread of export.py alone, where the environment asks for spans: neither the service
nor a shim has it otherwise. The extra `qemubox[otel]` brings it.
"""

import time
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shim.tracing.span import Span, Tree
from shim.version import VERSION
from shim.vm.timeline import boottime_ns

_NAME: Final = "qemubox-shim"
_CONTAINERD: Final = "containerd"


class NotTaken(Exception):
    """The collector did not take what was sent."""


class Sender:
    """OpenTelemetry, set up as the environment says. `attributes` are those of everything that is sent."""

    def __init__(self, attributes: Mapping[str, str]) -> None:
        # What the environment says of the service comes before what we do. But containerd puts its own name into the
        # environment that it hands on (2.3.4), and our spans are not its.
        named = dict(OTELResourceDetector().detect().attributes)
        if named.get(SERVICE_NAME) == _CONTAINERD:
            del named[SERVICE_NAME]
        resource = Resource.create({SERVICE_NAME: _NAME, **attributes, **named})
        self._ids = _GivenIds()
        self._ended = _Ended()
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("qemubox", VERSION)
        self._exporter = OTLPSpanExporter()

    def send(self, tree: Tree) -> None:
        """Send one call's. Raises NotTaken where the collector does not take it in time."""
        self._make(tree)
        ended, self._ended.spans = self._ended.spans, []
        if ended and self._exporter.export(ended) is not SpanExportResult.SUCCESS:
            raise NotTaken("the collector does not take them")

    def _make(self, tree: Tree) -> None:
        """Have the SDK make them, so that its sampler and its limits are in force."""
        # From CLOCK_BOOTTIME to the time of day, as it is now.
        ahead_ns = time.time_ns() - boottime_ns()
        recorded = tree.recorded
        for span in tree.spans:
            self._ids.trace_id, self._ids.span_id = int(tree.trace_id, 16), int(span.span_id, 16)
            made = self._tracer.start_span(
                span.name,
                context=_context(tree, span, recorded=recorded),
                kind=SpanKind[span.kind],
                attributes=span.attributes,
                start_time=span.begin_ns + ahead_ns,
            )
            if span.parent is None:  # what the sampler says of the first holds for all
                recorded = bool(made.get_span_context().trace_flags & TraceFlags.SAMPLED)
            if span.error:
                made.set_status(Status(StatusCode.ERROR, span.error))
            made.end(span.end_ns + ahead_ns)


class _GivenIds(IdGenerator):
    """The guest, and who asked for the call, know a span by the number that it has already."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> int:
        return self.trace_id

    def is_trace_id_random(self) -> bool:
        return True


class _Ended(SpanProcessor):
    """Keeps what has ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """SpanProcessor.on_end; only for what is sampled."""
        if span.context is not None and span.context.trace_flags & TraceFlags.SAMPLED:
            self.spans.append(span)


def _context(tree: Tree, span: Span, *, recorded: bool) -> Context:
    """Where the SDK finds the parent; nothing above a trace's first span."""
    parent_id = span.parent.span_id if span.parent else tree.parent.span_id if tree.parent else ""
    if not parent_id:
        return Context()
    parent = SpanContext(
        int(tree.trace_id, 16),
        int(parent_id, 16),
        is_remote=span.parent is None,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if recorded else TraceFlags.DEFAULT),
    )
    return set_span_in_context(NonRecordingSpan(parent), Context())
