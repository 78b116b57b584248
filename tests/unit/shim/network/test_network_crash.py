"""`delete` after a shim that was killed anywhere between nothing and a network, and back; real plugins. Needs root."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.shim.network import setting_up
from tests.unit.shim.network.cell import Cell, cell, conflist
from tests.unit.shim.network.setting_up import MOMENTS
from tests.unit.shim.observe import line_of, release
from tests.unit.shim.program import Host, Shim

_NETNS = "/run/netns/qemubox-0123456789abcdef01234567"
_KILLED = -9


@dataclass(frozen=True)
class _Place:
    """A cell with a network, and what is in it when nobody is attached."""

    cell: Cell
    nothing: list[str]
    # How long the whole way takes.
    way_s: float


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Place]:
    """One for all tests here: each leaves it as it was."""
    with cell(tmp_path_factory.mktemp("cell")) as made:
        network = made.conf_dir / "net.conflist"
        network.write_text(json.dumps(conflist(made.leases)))
        host = Host()
        try:
            host.config.write_text(host.config.read_text() + made.config)
            began = time.monotonic()
            assert _set_up(made, host.shim(), "").wait(50) == 0
            way_s = time.monotonic() - began
        finally:
            host.close()
        yield _Place(made, made.traces(), way_s)


@pytest.fixture
def shim(host: Host, place: _Place) -> Shim:
    """A container with the cell's network in its configuration."""
    host.config.write_text(host.config.read_text() + place.cell.config)
    shim = host.shim()
    (shim.bundle / "qemubox").symlink_to(shim.directory)
    return shim


def _set_up(cell: Cell, shim: Shim, moment: str) -> subprocess.Popen[bytes]:
    words = cell.inside(sys.executable, setting_up.__file__, shim.directory, _NETNS, moment)
    return subprocess.Popen(words, env=shim.environment)


def _delete(cell: Cell, shim: Shim) -> None:
    done = cell.run(*shim.words("-bundle", str(shim.bundle), "delete"), env=shim.environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_container_leaves_the_bridge_and_chains_that_all_share(place: _Place) -> None:
    assert [trace for trace in place.nothing if "link" in trace] == ["link lo:", "link qb0:"]
    assert [trace for trace in place.nothing if trace.split()[0] in ("netns", "mount", "lease", "cached")] == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_left(place: _Place, shim: Shim, moment: str) -> None:
    with _set_up(place.cell, shim, moment) as doomed:
        assert doomed.wait(50) == _KILLED
    if moment == "attached":
        kinds = {trace.split()[0] for trace in place.cell.traces() if trace not in place.nothing}
        assert kinds == {"link", "netns", "mount", "lease", "cached", "iptables-save"}
    _delete(place.cell, shim)
    assert place.cell.traces() == place.nothing
    assert shim.left() == []


def _vanish(cell: Cell, what: str) -> None:
    """What somebody, or something, has taken away behind our back."""
    if what == "namespace":
        cell.tell("umount", _NETNS)
        cell.tell("rm", _NETNS)
    elif what == "interface":
        cell.tell("nsenter", f"--net={_NETNS}", "ip", "link", "delete", "eth0")
    elif what == "bridge":
        cell.tell("ip", "link", "delete", "qb0")
    else:
        (lease,) = cell.leases.glob("*/10.*")
        lease.unlink()


@pytest.mark.parametrize("what", ["namespace", "interface", "lease", "bridge"])
def test_nothing_is_left_where_a_part_has_vanished(place: _Place, shim: Shim, what: str) -> None:
    with _set_up(place.cell, shim, "attached") as doomed:
        assert doomed.wait(50) == _KILLED
    _vanish(place.cell, what)
    _delete(place.cell, shim)
    assert set(place.cell.traces()) <= set(place.nothing)
    assert shim.left() == []


def test_a_namespace_goes_in_other_mount_namespaces_too(place: _Place, shim: Shim) -> None:
    """Where it is mounted as well, because that directory is shared: it would live on there."""
    words = place.cell.inside("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", "echo; read -r _")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert line_of(other) == ""
        with _set_up(place.cell, shim, "netns made") as doomed:
            assert doomed.wait(50) == _KILLED
        mounts = Path(f"/proc/{other.pid}/mountinfo")
        assert _NETNS in mounts.read_text()
        _delete(place.cell, shim)
        assert _NETNS not in mounts.read_text()
        release(other)


@pytest.mark.parametrize("with_plugin", [False, True])
@pytest.mark.parametrize("tenth", range(1, 10, 2))
def test_nothing_is_left_whenever_it_comes(place: _Place, shim: Shim, tenth: int, with_plugin: bool) -> None:
    """Somewhere on the way, also in the middle of a plugin's work, and of what that started; with it, or alone."""
    with _set_up(place.cell, shim, "") as doomed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            doomed.wait(tenth * place.way_s / 10)
        plugins = _descendants(doomed.pid) if with_plugin else []
        for pid in (doomed.pid, *plugins):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    _delete(place.cell, shim)
    assert set(_without_empty_leases(place)) <= set(place.nothing)
    assert shim.left() == []


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [grandchild for child in children for grandchild in _descendants(child)]


def _without_empty_leases(place: _Place) -> list[str]:
    """host-local that is killed between making a lease and writing into it leaves that to gc (test_network_gc.py)."""
    for path in place.cell.leases.glob("*/10.*"):
        if path.stat().st_size == 0:
            path.unlink()
    return place.cell.traces()
