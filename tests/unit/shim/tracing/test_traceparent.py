"""The names of spans, as the W3C has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shim.tracing.traceparent import Parent, parse, render

_TRACE, _SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("text", "recorded"),
    [
        (f"00-{_TRACE}-{_SPAN}-01", True),
        (f"00-{_TRACE}-{_SPAN}-00", False),
        (f"00-{_TRACE}-{_SPAN}-03", True),
        (f" 00-{_TRACE}-{_SPAN}-01\n", True),
        (f"01-{_TRACE}-{_SPAN}-01-more", True),
    ],
)
def test_a_name(text: str, recorded: bool) -> None:
    assert parse(text) == Parent(_TRACE, _SPAN, recorded)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"ff-{_TRACE}-{_SPAN}-01",
        f"00-{_TRACE}-{_SPAN}-01-more",
        f"00-{_TRACE}-{_SPAN}-1",
        f"00-{_TRACE.upper()}-{_SPAN}-01",
        f"00-{'0' * 32}-{_SPAN}-01",
        f"00-{_TRACE}-{'0' * 16}-01",
        f"00-{_TRACE[1:]}-{_SPAN}-01",
        f"00-{_TRACE}{_SPAN}-01",
    ],
)
def test_no_name(text: str) -> None:
    assert parse(text) is None


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    found = parse(text)
    assert found is None or text.strip().startswith(tuple(f"{n:02x}" for n in range(255)))


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.booleans())
def test_what_is_rendered_is_parsed(trace: int, span: int, recorded: bool) -> None:
    parent = Parent(f"{trace:032x}", f"{span:016x}", recorded)
    assert parse(render(parent.trace_id, parent.span_id, recorded=recorded)) == parent
