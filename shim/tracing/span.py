"""Spans that are under way, and those that have ended with them.

A span belongs to the tree of one call. The current span is that of the running task, and of
the tasks that it has begun (contextvars); what goes on after the call has ended, such as the
wait for a container's end, adds nothing any more.
"""

import contextlib
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from shim.tracing.traceparent import Parent, render
from shim.vm.timeline import boottime_ns

# Of one call; what a guest says must not make it grow without end.
SPANS_MAX: Final = 200

Value = str | int | bool


class Tree:
    """All spans of one call, in the order in which they began: the call itself is the first."""

    def __init__(self, parent: Parent | None) -> None:
        self.parent = parent
        self.trace_id = parent.trace_id if parent else secrets.token_hex(16)
        # What says whether a trace without a parent is kept is OpenTelemetry's sampler, later (export.py).
        self.recorded = parent.recorded if parent else True
        self.spans: list[Span] = []
        self.ended = False


class Span:
    """One span. Times are nanoseconds on CLOCK_BOOTTIME, as those of shim/vm/timeline.py."""

    def __init__(self, tree: Tree, name: str, parent: "Span | None", *, kind: str, begin_ns: int) -> None:
        self.tree = tree
        self.name = name
        self.parent = parent
        # A name of OpenTelemetry's SpanKind: INTERNAL, SERVER or CLIENT.
        self.kind = kind
        self.span_id = secrets.token_hex(8)
        self.begin_ns = begin_ns
        # 0 while it is under way.
        self.end_ns = 0
        self.error = ""
        self.attributes: dict[str, Value] = {}
        tree.spans.append(self)

    @property
    def traceparent(self) -> str:
        """Its name, for another process."""
        return render(self.tree.trace_id, self.span_id, recorded=self.tree.recorded)

    def child(self, name: str, *, kind: str = "INTERNAL", begin_ns: int = 0) -> "Span | None":
        """A span below this one that begins now, or at `begin_ns`; None where the call has no room for more."""
        if self.tree.ended or len(self.tree.spans) >= SPANS_MAX:
            return None
        return Span(self.tree, name, self, kind=kind, begin_ns=begin_ns or boottime_ns())

    def add(self, name: str, begin_ns: int, end_ns: int, *, kind: str = "INTERNAL") -> "Span | None":
        """A span below this one that has been."""
        added = self.child(name, kind=kind, begin_ns=begin_ns)
        if added is not None:
            added.end_ns = end_ns
        return added

    def end(self, error: BaseException | None = None) -> None:
        """It is over, by that error if there is one."""
        self.end_ns = boottime_ns()
        if error is not None:
            self.error = f"{type(error).__name__}: {error}"


_current: ContextVar[Span | None] = ContextVar("qemubox span", default=None)


def current() -> Span | None:
    """The span that the running task works for."""
    return _current.get()


@contextlib.contextmanager
def during(span: Span | None) -> Iterator[None]:
    """Have `span` be the current one for a block, and end with it. None is none."""
    if span is None:
        yield
        return
    token = _current.set(span)
    try:
        yield
    except BaseException as error:
        span.end(error)
        raise
    else:
        span.end()
    finally:
        _current.reset(token)
