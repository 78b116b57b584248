"""Whether the environment asks for spans: OpenTelemetry's own variables. Pure.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
The rest of them (where to send to, what to sample, names, limits, time-outs) OpenTelemetry
reads itself, when it is imported (export.py).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from shim.tracing.traceparent import Parent, parse

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER: Final = "OTEL_TRACES_EXPORTER"
_DISABLED: Final = "OTEL_SDK_DISABLED"
_TRACEPARENT: Final = "TRACEPARENT"
_PROTOCOL: Final = "http/protobuf"


class Settings(NamedTuple):
    """`wanted`, or the reason why what is asked for cannot be had. `parent` is that of calls that name none."""

    wanted: bool
    refusal: str = ""
    parent: Parent | None = None


def read(environment: Mapping[str, str]) -> Settings:
    """What the environment asks for: spans where it names a collector, the exporter for one, or a span of its own."""
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return Settings(False)
    exporter = environment.get(_EXPORTER, "")
    parent = parse(environment.get(_TRACEPARENT, ""))
    if exporter == "none" or not (exporter or parent or any(environment.get(name) for name in _ENDPOINTS)):
        return Settings(False)
    if exporter not in ("", "otlp"):
        return Settings(False, f"{_EXPORTER}={exporter}: there is otlp, and none")
    for name in _PROTOCOLS:
        protocol = environment.get(name)
        if protocol == _PROTOCOL:
            break
        if protocol:
            return Settings(False, f"{name}={protocol}: there is {_PROTOCOL}")
    return Settings(True, parent=parent)
