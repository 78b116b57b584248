"""What of the environment asks for spans, and what does not."""

import pytest

from shim.tracing.settings import Settings, read
from shim.tracing.traceparent import Parent

_TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_PARENT = Parent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True)
_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environment", "parent"),
    [
        (_ENDPOINT, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector/v1/traces"}, None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None),
        ({"TRACEPARENT": _TRACEPARENT}, _PARENT),
        ({**_ENDPOINT, "TRACEPARENT": _TRACEPARENT}, _PARENT),
        ({**_ENDPOINT, "TRACEPARENT": "nonsense"}, None),
        ({**_ENDPOINT, "OTEL_SDK_DISABLED": "false"}, None),
        ({**_ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, None),
        (
            {**_ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            None,
        ),
    ],
)
def test_spans_are_wanted(environment: dict[str, str], parent: Parent | None) -> None:
    assert read(environment) == Settings(True, parent=parent)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"PATH": "/bin"},
        {"OTEL_SERVICE_NAME": "containerd"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"TRACEPARENT": "nonsense"},
        {**_ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"},
        {**_ENDPOINT, "OTEL_TRACES_EXPORTER": "none", "TRACEPARENT": _TRACEPARENT},
    ],
)
def test_none_are_wanted(environment: dict[str, str]) -> None:
    assert read(environment) == Settings(False)


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin: there is otlp"),
        (
            {**_ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: there is http/protobuf",
        ),
        ({**_ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "http/json: there is http/protobuf"),
    ],
)
def test_what_cannot_be_had_is_said(environment: dict[str, str], said: str) -> None:
    found = read(environment)
    assert not found.wanted
    assert said in found.refusal
