"""What is undone of a network by the journal, when things are not as they were. Needs root."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni import Attachment, PluginMissing, parse
from cni.document import JsonValue
from shim.journal import Journal
from shim.network import attached, tap
from shim.network.attached import Attached, Plugins
from shim.network.survey import survey
from shim.reclaim import reclaim
from tests.unit.shim.network import setting_up
from tests.unit.shim.network.cell import Cell, cell, conflist
from tests.unit.shim.network.places import Place
from tests.unit.shim.observe import same_fds, until, wait_for_words
from tests.unit.shim.program import Host, Shim

_FAKE = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "fake"}]}'
# containerd's limit (io.containerd.timeout.shim.cleanup).
_LIMIT_S = 5.0
_HELD = """
cat >/dev/null
if [ $CNI_COMMAND = ADD ]; then
    echo '{"cniVersion": "1.0.0"}'
elif [ ! -e held ]; then
    touch held
    read -r _ <fifo
fi
"""
_CONFLIST = "/etc/qemubox/net.d/net.conflist"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


def _attached(tmp_path: Path) -> Attached:
    plugins = Plugins((str(tmp_path / "plugins"),), str(tmp_path / "cache"), str(tmp_path / "lock"), 20)
    capabilities: dict[str, JsonValue] = {"portMappings": [{"hostPort": 80}], "mac": "02:00:00:00:00:01"}
    attachment = Attachment("qemubox-1", "/run/netns/gone", "eth0", (("A", "1"), ("A", "2")), capabilities)
    return Attached(parse(_FAKE.encode(), _CONFLIST), attachment, plugins)


def _plugin(tmp_path: Path, script: str) -> None:
    path = tmp_path / "plugins" / "fake"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_what_was_written_is_what_is_read(directory: Path, tmp_path: Path) -> None:
    told = _attached(tmp_path)
    path = attached.leave(directory, Journal(directory), told)
    assert attached.read(path) == told
    assert path.stat().st_mode & 0o777 == 0o600


def test_del_runs_once_and_last_of_all_the_file_goes(directory: Path, tmp_path: Path) -> None:
    _plugin(tmp_path, f"cat >/dev/null; echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME >>{tmp_path}/ran")
    path = attached.leave(directory, Journal(directory), _attached(tmp_path))
    with same_fds():
        assert reclaim(directory, keep_directory=True) == []
    assert not path.exists()
    assert reclaim(directory) == []
    assert (tmp_path / "ran").read_text() == "DEL qemubox-1 eth0\n"


@pytest.mark.parametrize("text", ["", '{"network": "{'])
def test_a_file_that_was_not_written_whole_was_followed_by_no_add(directory: Path, tmp_path: Path, text: str) -> None:
    attached.leave(directory, Journal(directory), _attached(tmp_path)).write_text(text)
    assert reclaim(directory) == []
    assert not directory.exists()


def test_what_was_recorded_and_not_written_is_no_error(directory: Path) -> None:
    Journal(directory).record("cni", path=str(directory / attached.FILE_NAME))
    assert reclaim(directory) == []


def test_a_plugin_that_fails_is_quoted_and_asked_again(directory: Path, tmp_path: Path) -> None:
    path = attached.leave(directory, Journal(directory), _attached(tmp_path))
    (tmp_path / "first").touch()
    Journal(directory).record("path", path=str(tmp_path / "first"))
    (problem,) = reclaim(directory)
    assert problem.startswith(f"cni {path}: CNI DEL of network 'net' ({_CONFLIST}): plugin 'fake' is not in")
    assert not (tmp_path / "first").exists()
    _plugin(tmp_path, 'cat >/dev/null; echo \'{"code": 7, "msg": "no", "details": "really"}\'; exit 1')
    (problem,) = reclaim(directory)
    assert problem.endswith("plugin 'fake' failed with code 7: no; really")
    _plugin(tmp_path, "cat >/dev/null")
    assert reclaim(directory) == []
    assert not directory.exists()


def test_no_more_time_than_there_is(directory: Path, tmp_path: Path) -> None:
    _plugin(tmp_path, "exec sleep 1000")
    path = attached.leave(directory, Journal(directory), _attached(tmp_path))
    began = time.monotonic()
    with same_fds():
        (problem,) = reclaim(directory, cni_deadline=began + 0.5)
    assert 0.5 <= time.monotonic() - began < 5
    assert problem.startswith(f"cni {path}: DEL did not end within 0.")


def _ingress(place: Place, link: str) -> bool:
    return "ingress" in place.tc(f"qdisc show dev {link}")


def _connect(place: Place) -> None:
    """As a shim that was killed has left it: its TAP is gone with it."""
    (interface,) = survey(place.fd).interfaces
    for fd in tap.connect(place.fd, interface, name="qb-eth0", queues=1):
        os.close(fd)


def test_the_ingress_qdisc_in_a_namespace_that_stays(wired: Place, directory: Path) -> None:
    _connect(wired)
    assert _ingress(wired, "eth0")
    Journal(directory).record("ingress", path=str(wired.path), link="eth0", inode=os.fstat(wired.fd).st_ino)
    Journal(directory).record("ingress", path=str(wired.path), link="gone")
    with same_fds():
        assert reclaim(directory) == []
    assert not _ingress(wired, "eth0")


def test_the_ingress_qdisc_of_a_machine_that_lives_yet(wired: Place, directory: Path) -> None:
    """It was there before the qdisc, and holds the TAP to which that leads: it has to go first."""
    marker = f"-name qemubox-test-{os.getpid()}-{wired.fd}"
    (interface,) = survey(wired.fd).interfaces
    taps = tap.connect(wired.fd, interface, name="qb-eth0", queues=1)
    with subprocess.Popen([sys.executable, "-c", "input()", marker], stdin=subprocess.PIPE, pass_fds=taps) as machine:
        os.close(*taps)
        wait_for_words(machine.pid, marker)
        Journal(directory).record("process", marker=marker)
        Journal(directory).record("ingress", path=str(wired.path), link="eth0")
        assert reclaim(directory) == []
        assert not _ingress(wired, "eth0")
        assert machine.wait(10) == -signal.SIGKILL


def test_where_a_program_is_missing_nothing_is_written_down(tmp_path: Path, directory: Path) -> None:
    """Its DEL would need the same."""
    with pytest.raises(PluginMissing):
        asyncio.run(attached.attach(directory, Journal(directory), _attached(tmp_path)))
    assert os.listdir(directory) == []


def test_another_namespace_at_the_same_path_is_left_alone(wired: Place, directory: Path) -> None:
    _connect(wired)
    Journal(directory).record("ingress", path=str(wired.path), link="eth0", inode=os.fstat(wired.fd).st_ino + 1)
    assert reclaim(directory) == []
    assert _ingress(wired, "eth0")


def test_a_path_that_is_no_other_s_namespace_any_more_is_undone(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "gone", tmp_path / "file" / "x", Path("/proc/self/ns/net")):
        Journal(directory).record("ingress", path=str(path), link="lo")
    with same_fds():
        assert reclaim(directory) == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Cell]:
    """A cell with a network whose plugin `held` waits, at its first DEL, until somebody writes to its FIFO."""
    with cell(tmp_path) as made:
        os.mkfifo(made.path / "fifo")
        (made.conf_dir / "net.conflist").write_text(json.dumps(conflist(made.leases, {"type": "held"})))
        yield made


@pytest.fixture
def left(place: Cell, host: Host) -> Shim:
    """A container with that network, whose shim was killed."""
    host.config.write_text(host.config.read_text() + place.config)
    place.plugin("held", f"cd {place.path}\n{_HELD}")
    shim = host.shim()
    (shim.bundle / "qemubox").symlink_to(shim.directory)
    words = place.inside(sys.executable, setting_up.__file__, shim.directory, "/run/netns/qemubox-1", "attached")
    with subprocess.Popen(words, env=shim.environment) as doomed:
        assert doomed.wait(50) == -9
    return shim


def _assert_goes_on(place: Cell, shim: Shim) -> None:
    until(lambda: not shim.directory.exists(), "the process that goes on has ended it")
    assert [trace for trace in place.traces() if trace.split()[0] in ("netns", "mount", "lease", "cached")] == []


def test_a_delete_that_containerd_will_not_wait_for_says_so_and_goes_on(place: Cell, left: Shim) -> None:
    began = time.monotonic()
    done = place.run(*left.words("-bundle", str(left.bundle), "delete"), env=left.environment)
    assert time.monotonic() - began < _LIMIT_S
    assert done.returncode == 1
    told = re.fullmatch(r"c1: .*: cni \S+: DEL did not end within \S+ s; process (\d+) goes on with it\n", done.stderr)
    assert told
    _assert_goes_on(place, left)


def test_a_delete_that_containerd_kills_goes_on(place: Cell, left: Shim) -> None:
    words = place.inside(*left.words("-bundle", str(left.bundle), "delete"))
    with subprocess.Popen(words, env=left.environment) as doomed, (place.path / "fifo").open("w") as held:
        doomed.kill()
        assert doomed.wait(20) == -9
        held.write("\n")
    _assert_goes_on(place, left)
