"""The name of a span as it travels from one process to the next: W3C Trace Context, level 1.

    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    version, trace, span, flags; the lowest flag: it is recorded

https://www.w3.org/TR/trace-context/#traceparent-header
"""

import re
from typing import Final, NamedTuple

KEY: Final = "traceparent"
# A later version may have more behind the flags.
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_RECORDED: Final = 1


class Parent(NamedTuple):
    """A span of another process: numbers in hex, and whether that process records it."""

    trace_id: str
    span_id: str
    recorded: bool


def parse(text: str) -> Parent | None:
    """The span that `text` names; None where it names none."""
    found = _FORM.fullmatch(text.strip())
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _RECORDED))


def render(trace_id: str, span_id: str, *, recorded: bool) -> str:
    """The name that `parse` reads."""
    return f"00-{trace_id}-{span_id}-{int(recorded):02x}"
