"""containerd's level and the configured one, together."""

import pytest

from api import bootstrap_pb2
from shim import log_level
from shim.config import Config


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (bootstrap_pb2.LOG_LEVEL_TRACE, "debug"),
        (bootstrap_pb2.LOG_LEVEL_DEBUG, "debug"),
        (bootstrap_pb2.LOG_LEVEL_INFO, "info"),
        (bootstrap_pb2.LOG_LEVEL_WARN, "warning"),
        (bootstrap_pb2.LOG_LEVEL_ERROR, "error"),
        (bootstrap_pb2.LOG_LEVEL_FATAL, "error"),
        (bootstrap_pb2.LOG_LEVEL_PANIC, "error"),
        (1 << 30, "error"),
        (-(1 << 31), "debug"),
    ],
)
def test_containerd_s_number_has_a_name(number: int, name: str) -> None:
    assert log_level.of_containerd(number, debug=False) == name
    assert log_level.of_containerd(number, debug=True) == "debug"


@pytest.mark.parametrize(
    ("configured", "containerd", "level"),
    [
        ("auto", "debug", "debug"),
        ("auto", "info", "info"),
        ("auto", "error", "error"),
        ("warning", "info", "warning"),
        ("info", "error", "info"),
        ("debug", "error", "debug"),
        ("error", "debug", "debug"),
    ],
)
def test_together(configured: str, containerd: str, level: str) -> None:
    assert log_level.in_force(configured, containerd) == level


def test_untouched_it_is_containerd_s() -> None:
    assert Config().log.level == "auto"
