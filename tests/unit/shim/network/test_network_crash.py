"""`delete` after a shim that was killed anywhere between nothing and a network, and back; real plugins. Needs root."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.unit.shim.network import setting_up
from tests.unit.shim.network.cell import Cell, cell, conflist
from tests.unit.shim.network.setting_up import MOMENTS
from tests.unit.shim.program import Host, Shim

_NETNS = "/run/netns/qemubox-0123456789abcdef01234567"
_KILLED = -9


@dataclass(frozen=True)
class _Place:
    """A cell with a network, and what is in it when nobody is attached."""

    cell: Cell
    nothing: list[str]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Place]:
    """One for all tests here: each leaves it as it was."""
    with cell(tmp_path_factory.mktemp("cell")) as made:
        network = made.conf_dir / "net.conflist"
        network.write_text(json.dumps(conflist(made.leases)))
        host = Host()
        try:
            host.config.write_text(host.config.read_text() + made.config)
            done = _set_up(made, host.shim(), "")
            assert done.wait(50) == 0
        finally:
            host.close()
        yield _Place(made, made.traces())


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
    assert (done.returncode, done.stderr) == (0, "")


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
