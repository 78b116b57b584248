"""Calls that are part of a trace: the shim names it in their metadata, and is told when they were at work.

The machine has no way to a collector: the shim makes the spans of what it is told, and vminitd only writes the
trace's number into its debug lines.
"""

from collections.abc import Mapping

from api.guest_pb2 import ConfigureResponse, CreateResponse, Milestone, StartResponse
from ttrpc import Context
from ttrpc.service import Exchange, Method, Service
from vminitd import log, milestones

_KEY = "traceparent"


def is_traced(context: Context) -> bool:
    """Whether the shim wants to know when the call was at work."""
    return bool(_trace_id(context))


def tell(response: ConfigureResponse | CreateResponse | StartResponse, began_ns: int) -> None:
    """Puts times into an answer that is about to be sent, to a call that was taken up at `began_ns`."""
    response.milestones.extend(Milestone(name=name, boottime_ns=at_ns) for name, at_ns in milestones.marks())
    response.began_ns = began_ns
    response.boottime_ns = milestones.now_ns()


class Traced(Service):
    """`service`, as it is, but with the trace's number in the debug lines of its calls."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def service_methods(self) -> Mapping[str, Method]:
        return {path: _TracedMethod(method) for path, method in self._service.service_methods().items()}


class _TracedMethod(Method):
    def __init__(self, method: Method) -> None:
        self.streams_in, self.streams_out = method.streams_in, method.streams_out
        self._method = method

    async def run(self, exchange: Exchange) -> bytes:
        # Each call has a task, and so a context, of its own.
        log.trace_id.set(_trace_id(exchange.context))
        return await self._method.run(exchange)


def _trace_id(context: Context) -> str:
    """The second part of "00-TRACE-SPAN-FLAGS" (W3C Trace Context)."""
    for text in context.metadata.get(_KEY, ()):
        parts = text.split("-")
        return parts[1] if len(parts) == 4 else ""
    return ""
