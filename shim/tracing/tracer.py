"""Begins the spans of a call, and hands them over to what sends them once it has ended."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from shim import deadlines
from shim.identity import Identity
from shim.log import Logger
from shim.tracing import settings
from shim.tracing.export import Exporter
from shim.tracing.span import Span, Tree, during
from shim.tracing.traceparent import KEY, Parent, parse
from shim.vm.timeline import boottime_ns
from ttrpc import StatusError

# Questions, which some clients ask once a second, and waits: spans only where somebody else's trace asks for them.
_ONLY_WITH_PARENT: Final = frozenset({"State", "Pids", "Stats", "Wait", "Connect"})


class Tracer:
    """Of one shim. `parent` is that of all calls that name none."""

    def __init__(self, parent: Parent | None, exporter: Exporter) -> None:
        self._parent = parent
        self._exporter = exporter

    @contextlib.contextmanager
    def call(self, path: str, metadata: Mapping[str, list[str]]) -> Iterator[Span | None]:
        """Have a block be a call of the method "/package.Service/Method", for a client that sent that metadata."""
        service, _, method = path.removeprefix("/").partition("/")
        named = next((parent for text in metadata.get(KEY, [])[:1] if (parent := parse(text)) is not None), None)
        parent = named or self._parent
        if parent is None and method in _ONLY_WITH_PARENT:
            yield None
            return
        tree = Tree(parent)
        span = Span(tree, f"{service}/{method}", None, kind="SERVER", begin_ns=boottime_ns())
        span.attributes |= {"rpc.system": "ttrpc", "rpc.service": service, "rpc.method": method}
        try:
            with during(span):
                yield span
        except StatusError as error:
            span.error = error.message
            span.attributes["rpc.grpc.status_code"] = int(error.code)
            raise
        finally:
            tree.ended = True
            # What has not ended by itself has been given up with the call.
            for each in tree.spans:
                each.end_ns = each.end_ns or span.end_ns
            self._exporter.put(tree)

    def close(self) -> None:
        """Send what is left, if that can be done in a moment."""
        self._exporter.close(deadlines.TRACES_FLUSH_S)


def begin(environment: Mapping[str, str], identity: Identity, log: Logger) -> Tracer | None:
    """The tracer of this shim; None where the environment asks for none."""
    wanted = settings.read(environment)
    if wanted.refusal:
        log.warning("no spans", reason=wanted.refusal)
    if not wanted.wanted:
        return None
    attributes = {"container.id": identity.container_id, "containerd.namespace": identity.namespace}
    return Tracer(wanted.parent, Exporter(attributes, log))
