"""Calls to the guest as spans, and the guest's own time below them.

The name of the span goes along in the call's metadata; vminitd writes the trace's into its debug
lines. It has no way to a collector: what it measured comes home in its answers, on its own clock,
when it took the call, its milestones since, and what the clock shows as the answer is sent. The two
clocks are apart by at most what ours shows when an answer comes less that; the least of all
is taken, as in shim/vm/timeline.py. The guest is not trusted: whatever it says, its spans
lie within its call's, and are few.
"""

from collections.abc import Iterable
from typing import Final, TypeVar

from google.protobuf.message import Message

from api.guest_pb2 import ConfigureResponse, CreateResponse, StartResponse
from shim.tracing.span import Span, current, during
from shim.tracing.traceparent import KEY
from ttrpc import Client
from ttrpc.messages import Metadata

MILESTONES_MAX: Final = 32
NAME_MAX: Final = 64

_Req = TypeVar("_Req", bound=Message)
_Resp = TypeVar("_Resp", bound=Message)


class GuestClient(Client):
    """A client for vminitd, whose calls are spans wherever their caller is in one."""

    _ahead_ns: int | None = None

    async def call(
        self,
        path: str,
        request: _Req,
        reply_type: type[_Resp],
        *,
        timeout_s: float | None = None,
        metadata: Metadata | None = None,
    ) -> _Resp:
        """Client.call."""
        above = current()
        method = path.rpartition("/")[2]
        span = None if above is None else above.child(f"guest {method}", kind="CLIENT")
        if span is None:
            return await super().call(path, request, reply_type, timeout_s=timeout_s, metadata=metadata)
        with during(span):
            named = {**(metadata or {}), KEY: span.traceparent}
            reply = await super().call(path, request, reply_type, timeout_s=timeout_s, metadata=named)
        if isinstance(reply, ConfigureResponse | CreateResponse | StartResponse):
            self._hear(span, f"vminitd {method}", reply)
        return reply

    def _hear(self, span: Span, name: str, reply: ConfigureResponse | CreateResponse | StartResponse) -> None:
        """Put what the guest says below the span of the call, which has ended just now."""
        if not reply.began_ns:
            return
        ahead_ns = span.end_ns - reply.boottime_ns
        self._ahead_ns = ahead_ns = ahead_ns if self._ahead_ns is None else min(self._ahead_ns, ahead_ns)
        milestones = [(item.name, item.boottime_ns + ahead_ns) for item in reply.milestones[-MILESTONES_MAX:]]
        spans = parted(
            (reply.began_ns + ahead_ns, reply.boottime_ns + ahead_ns), milestones, within=(span.begin_ns, span.end_ns)
        )
        (begin_ns, end_ns), phases = spans
        inside = span.add(name, begin_ns, end_ns, kind="SERVER")
        if inside is not None:
            for phase, phase_begin_ns, phase_end_ns in phases:
                inside.add(phase, phase_begin_ns, phase_end_ns)


def parted(
    whole: tuple[int, int], milestones: Iterable[tuple[str, int]], *, within: tuple[int, int]
) -> tuple[tuple[int, int], list[tuple[str, int, int]]]:
    """The time from `whole[0]` to `whole[1]`, and the parts of it that end with a milestone each. Pure.

    All of that lies `within`; milestones from before, as a boot's, are left out.
    """
    begin_ns = min(max(whole[0], within[0]), within[1])
    end_ns = min(max(whole[1], begin_ns), within[1])
    parts, from_ns = [], begin_ns
    for name, at_ns in sorted(milestones, key=lambda milestone: milestone[1]):
        if begin_ns < at_ns <= end_ns:
            shown = "".join(character if character.isprintable() else "?" for character in name[:NAME_MAX])
            parts.append((shown, from_ns, at_ns))
            from_ns = at_ns
    return (begin_ns, end_ns), parts
