"""The processor's time of a process, by its own clock."""

import os
import time

import psutil
import pytest

from tests.bench.processor import by_kind, used_ms


def test_it_grows_with_work_and_only_then() -> None:
    before = used_ms(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    worked = used_ms(os.getpid())
    assert worked - before >= 50
    assert worked == pytest.approx(time.process_time() * 1000, abs=20)


def test_a_process_that_is_not_there_has_none() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        used_ms((1 << 22) - 1)


def test_it_is_told_by_kind() -> None:
    found = by_kind([psutil.Process()])
    assert [*found] == ["container"]
    assert found["container"] > 0
