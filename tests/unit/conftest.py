"""For all unit tests: what Hypothesis may take, and what begins first where workers share them out.

The suite runs on busy machines, and measures nothing.
"""

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

# Files that take ten seconds and more, longest first: at the end one worker would be at them alone.
LONGEST: Final = (
    "shim/test_warm_start.py",
    "shim/network/test_network_gc.py",
    "test_layers.py",
    "shim/test_shim_events.py",
    "bench/test_bench_report.py",
    "shim/test_warm_service.py",
    "cni/test_cni_plugins_faults.py",
    "cni/test_cni_plugins.py",
    "shim/test_warm_child.py",
    "shim/rootfs/test_rootfs_cache_damage.py",
)

settings.register_profile("qemubox", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qemubox")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; all else as it was."""
    turns = {name: turn for turn, name in enumerate(LONGEST)}
    here = len(__file__.removesuffix("conftest.py"))
    items.sort(key=lambda item: turns.get(str(item.path)[here:], len(turns)))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """What is there by now, all tests and modules, stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for sockets, whose paths have 107 bytes at most (unix(7)): a worker's tmp_path takes 70 of them."""
    path = Path(tempfile.mkdtemp(prefix="q", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def default_log() -> Iterator[None]:
    """What a test has set the log to ends with it: nobody else would see lines below that level."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()
