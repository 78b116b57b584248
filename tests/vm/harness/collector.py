"""An OpenTelemetry collector: takes spans over OTLP/HTTP, and keeps them."""

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from harness.netns import within


@dataclass(frozen=True)
class Received:
    """One span: numbers in hex, times in nanoseconds since 1970."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    begin_ns: int
    end_ns: int
    failed: bool
    # Of its service, and its own.
    resource: dict[str, str]
    attributes: dict[str, str]


class Collector:
    """Listens on a port of 127.0.0.1 in another network namespace or ours. `stalled` answers nobody until the end."""

    def __init__(self, netns: Path | None = None, *, stalled: bool = False) -> None:
        self._spans: list[Received] = []
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        if not stalled:
            self._go_on.set()
        self.asked = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """One request."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked.set()
                collector._go_on.wait()
                if self.path != "/v1/traces":
                    self.send_error(404)
                    return
                collector._take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        def listening() -> ThreadingHTTPServer:
            return ThreadingHTTPServer(("127.0.0.1", 0), Handler)

        self._server = within(netns, listening) if netns else listening()
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """What OTEL_EXPORTER_OTLP_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def spans(self) -> list[Received]:
        """What has come so far."""
        with self._lock:
            return list(self._spans)

    def __enter__(self) -> "Collector":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for group in request.resource_spans:
                resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
                for scope in group.scope_spans:
                    for span in scope.spans:
                        self._spans.append(
                            Received(
                                name=span.name,
                                trace_id=span.trace_id.hex(),
                                span_id=span.span_id.hex(),
                                parent_id=span.parent_span_id.hex(),
                                begin_ns=span.start_time_unix_nano,
                                end_ns=span.end_time_unix_nano,
                                failed=span.status.code == 2,
                                resource=resource,
                                attributes={pair.key: pair.value.string_value for pair in span.attributes},
                            )
                        )
