"""The phases of a Create: the span of the call is parted where the boot timeline has its marks.

Each is named after the mark that it ends with, and they leave no gap, so the longest of them is
where the time went. What was reached before the call (shim/prelaunch.py) is one number.
"""

import contextlib
from collections.abc import Iterator

from shim.tracing.span import current
from shim.vm.timeline import Timeline, boottime_ns


@contextlib.contextmanager
def phases_of(timeline: Timeline) -> Iterator[None]:
    """Part the current span, if there is one, at the end of the block, by what was marked in it."""
    span, begin_ns = current(), boottime_ns()
    try:
        yield
    finally:
        if span is not None:
            now_ns = boottime_ns()
            marks = sorted(timeline.marks, key=lambda mark: mark[1])
            if marks and marks[0][1] < begin_ns:
                span.attributes["qemubox.prelaunch_ms"] = (begin_ns - marks[0][1]) // 1_000_000
            for name, at_ns in marks:
                if begin_ns <= at_ns <= now_ns:
                    span.add(name, begin_ns, at_ns)
                    begin_ns = at_ns
