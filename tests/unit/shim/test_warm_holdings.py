"""What the service holds for its children: open in each shim, not in its anchors, and looked at again on SIGHUP."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim.warm.holdings import Holdings, inherited
from tests.unit.shim.observe import same_fds, until
from tests.unit.shim.program import Host
from tests.unit.shim.warm_service import WarmService

# What is held is a file in memory, another one at each look; the shim's log tells that it has it.
_SERVICE = """
import os, sys
import shim.daemon
from shim.warm import holdings
from shim.warm.ask import packages
from shim.warm.service import run
looks = 0
def refresh(held, log):
    global looks
    looks += 1
    held.hold("memory", os.memfd_create(f"look-{looks}"))
    sys.stderr.write(f"look {looks}\\n")
def open_log(*arguments, open_log=shim.daemon.open_log, **named):
    log = open_log(*arguments, **named)
    log.info("inherited", **holdings.inherited().fds)
    return log
shim.daemon.open_log = open_log
sys.exit(run(packages(), refresh))
"""


@pytest.fixture
def service(host: Host) -> Iterator[WarmService]:
    service = WarmService(host.service, (sys.executable, "-I", "-c", _SERVICE))
    service.start()
    yield service
    service.close()


def _files(pid: int) -> set[str]:
    return {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def test_a_shim_has_what_the_service_holds(host: Host, service: WarmService) -> None:
    for look in (1, 2):
        shim = host.shim(f"c{look}")
        shim.start()
        shim.connect()
        assert "msg=inherited memory=" in shim.log_text()
        # Where qemubox is installed, the shim has a copy of a template's memory, too, while QEMU starts.
        held = {name for name in _files(shim.pid) if name.startswith("/memfd:")} - {"/memfd:qemubox-memory (deleted)"}
        assert held == {f"/memfd:look-{look} (deleted)"}
        until(lambda shim=shim: _sources_files(shim.pid) == [2], "the anchors' source has let go of it")  # type: ignore[misc]
        os.kill(service.pid, signal.SIGHUP)
        service.until_logged(f"look {look + 1}")


def _sources_files(shim: int) -> list[int]:
    """How many different files the processes have open that the shim's anchors are forked from; there is one such."""
    children = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    sources = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "qemubox-anchor\n"]
    return [len(_files(int(pid))) for pid in sources]


def test_what_is_held_by_a_name_replaces_what_was() -> None:
    held = Holdings()
    with same_fds():
        for _ in range(3):
            held.hold("null", os.open(os.devnull, os.O_RDONLY))
        os.close(held.fds["null"])


def test_a_shim_of_its_own_has_inherited_nothing() -> None:
    assert inherited().fds == {}
