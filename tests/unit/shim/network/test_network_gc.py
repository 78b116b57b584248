"""`qemubox gc`: after a crash and after a power loss nothing is left, and nobody who lives is disturbed. Needs root."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shim import gc
from shim.claim import claim
from shim.config import Config
from shim.errors import HostError
from shim.journal import Journal
from shim.rootfs.place import Place
from tests.unit.shim.network import setting_up
from tests.unit.shim.network.cell import Cell, cell, conflist
from tests.unit.shim.observe import Spawn, line_of, release, until
from tests.unit.shim.program import Host, Shim

_KEY = "0123456789abcdef01234567"
# Says on one FIFO that it runs, and waits at the other, for what CNI_COMMAND is the first word of its configuration.
_HELD = 'cat >/dev/null; if [ $CNI_COMMAND = "%s" ]; then echo $CNI_COMMAND >%s/runs; read -r _ <%s/go; fi; %s'
_RESULT = """echo '{"cniVersion": "1.0.0"}'"""


class _Site:
    """A host's containers: a cell, a runtime directory, writable layers, and the command."""

    def __init__(self, host: Host, cell: Cell) -> None:
        self.host = host
        self.cell = cell
        self.data = host.path / "data"
        host.config.write_text(f'{host.config.read_text()}data_dir = "{self.data}"\n{cell.config}')
        self.shim = host.shim()
        self.key = self.shim.identity.key
        self.netns = Path(f"/run/netns/qemubox-{self.key}")
        self.network()

    def network(self, *further: dict[str, object], version: str = "1.0.0") -> None:
        """A bridge and whatever else."""
        made = conflist(self.cell.leases, version=version)
        made["plugins"] = [made["plugins"][0], *further]  # type: ignore[index]
        (self.cell.conf_dir / "net.conflist").write_text(json.dumps(made))

    def words(self, *words: str) -> list[str]:
        """The command line of `qemubox gc`."""
        return self.cell.inside(sys.executable, "-I", "-m", "shim.cli", "gc", *words)

    def gc(self, *words: str, status: int = 0) -> list[str]:
        """What it prints."""
        done = subprocess.run(
            self.words(*words), capture_output=True, text=True, env=self.shim.environment, timeout=50, check=False
        )
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
        return done.stdout.splitlines()

    def set_up(self, moment: str = "attached") -> None:
        """A container whose shim was killed there."""
        with subprocess.Popen(self.setting_up(moment), env=self.shim.environment) as doomed:
            assert doomed.wait(50) == -9

    def setting_up(self, moment: str) -> list[str]:
        """The command line of a container's set-up."""
        words = (sys.executable, setting_up.__file__, self.shim.directory, self.netns, moment)
        return self.cell.inside(*words)

    def lose_power(self) -> None:
        """What is on no disk is gone."""
        subprocess.run(["rm", "-r", self.host.state], check=True)
        self.cell.tell("umount", self.netns)
        self.cell.tell("rm", self.netns)
        self.cell.tell("ip", "link", "delete", "qb0")
        for name in ("iptables", "ip6tables"):
            self.cell.tell(name, "-t", "nat", "-F")

    def layer(self) -> None:
        """The image of a layer, for this start of the container alone."""
        directory = self.data / self.key
        directory.mkdir(parents=True)
        (directory / "layer.erofs").write_bytes(b"x")

    def written(self, number: int) -> tuple[Path, Path]:
        """A snapshot's upper directory, and the place of the image that a container has written to."""
        upper = self.host.path / "snapshots" / str(number) / "fs"
        upper.mkdir(parents=True)
        state = self.host.path / "journal"
        state.mkdir(exist_ok=True)
        place = Place.claim(self.data / "writable", upper, Journal(state))
        place.image.write_bytes(b"x")
        place.begin()
        place.close()
        return upper, place.record.parent

    def left(self) -> list[str]:
        """What is there of any container."""
        kinds = ("netns", "mount", "lease", "cached")
        traces = [trace for trace in self.cell.traces() if trace.split()[0] in kinds]
        return [*traces, *(str(path) for parent in (self.host.state / "vm", self.data) for path in parent.glob("*"))]


@pytest.fixture
def site(host: Host, tmp_path: Path) -> Iterator[_Site]:
    with cell(tmp_path) as made:
        yield _Site(host, made)


def test_where_nothing_is_left_nothing_is_said_or_made(site: _Site) -> None:
    assert site.gc() == []
    assert site.gc("--dry-run") == []
    assert site.gc("--json") == ["[]"]
    assert not site.data.exists()


def test_after_a_crash_that_no_delete_came_for(site: _Site) -> None:
    site.layer()
    site.set_up("TAP made")
    before = site.left()
    found = site.gc("--dry-run")
    assert found == [
        f"would remove: container {site.shim.directory}",
        f"would remove: attachment qemubox-{site.key} eth0 to net",
        f"would remove: network namespace {site.netns}",
        f"would remove: data {site.data / site.key}",
    ]
    assert site.left() == before
    assert site.gc() == [
        f"removed: container {site.shim.directory}",
        f"removed: data {site.data / site.key}",
    ]
    assert site.left() == []
    assert site.gc() == []


def test_after_a_power_loss_there_is_no_journal_and_leases_and_layers_go_all_the_same(site: _Site) -> None:
    site.layer()
    site.set_up()
    site.lose_power()
    assert {trace.split()[0] for trace in site.left()} == {"lease", "cached", str(site.data / site.key)}
    found = [f"attachment qemubox-{site.key} eth0 to net", f"data {site.data / site.key}"]
    assert site.gc("--dry-run") == [f"would remove: {what}" for what in found]
    assert not site.shim.directory.parent.exists()
    assert site.gc() == [f"removed: {what}" for what in found]
    assert site.left() == []


def test_a_power_loss_in_the_middle_of_an_add(site: _Site) -> None:
    site.network({"type": "held"})
    site.cell.plugin("held", _holding(site, "ADD", _RESULT))
    with subprocess.Popen(site.setting_up(""), env=site.shim.environment) as child:
        assert (site.cell.path / "runs").read_text() == "ADD\n"
        child.kill()
    (site.cell.path / "go").write_text("\n")
    site.lose_power()
    assert "lease" in {trace.split()[0] for trace in site.left()}
    assert site.gc() == [f"removed: attachment qemubox-{site.key} eth0 to net"]
    assert site.left() == []


def _holding(site: _Site, command: str, answer: str = ":") -> str:
    """A plugin's script that waits at `command`, FIFOs `runs` and `go`."""
    for name in ("runs", "go"):
        os.mkfifo(site.cell.path / name)
    return _HELD % (command, site.cell.path, site.cell.path, answer)


def test_for_programs(site: _Site) -> None:
    site.set_up()
    site.lose_power()
    assert json.loads("\n".join(site.gc("--json"))) == [
        {"what": "attachment", "name": f"qemubox-{site.key} eth0 to net", "outcome": "removed", "why": ""}
    ]


def test_what_lives_is_left_alone(site: _Site) -> None:
    """All that a container has, its shim holding its directory."""
    site.layer()
    site.set_up()
    lock = claim(site.shim.directory, deadline_s=0)
    try:
        before = site.left()
        assert (site.gc("--dry-run"), site.gc()) == ([], [])
        assert site.left() == before
    finally:
        os.close(lock)
    assert len(site.gc()) == 2
    assert site.left() == []


def test_what_is_used_without_a_directory_is_another_s(site: _Site) -> None:
    """Of a qemubox with another runtime directory, or of somebody at work by hand."""
    site.layer()
    site.set_up()
    subprocess.run(["rm", "-r", site.host.state], check=True)
    words = site.cell.inside("nsenter", f"--net={site.netns}", "sh", "-c", "echo; read -r _")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert line_of(user) == ""
        kept = [f"left alone: network namespace {site.netns}: process {user.pid} is in it"]
        assert (site.gc("--dry-run"), site.gc()) == (kept, kept)
        release(user)
    assert site.netns.name in site.cell.tell("ls", "/run/netns")
    assert not site.shim.directory.exists()
    assert len(site.gc()) == 3
    assert site.left() == []


def test_kept_layers_go_with_their_snapshots_and_never_under_a_machine(site: _Site, spawn: Spawn) -> None:
    (alive, kept), (gone, unwanted), (used, open_layer) = (site.written(number) for number in (1, 2, 3))
    for upper in (gone, used):
        upper.rmdir()
        upper.parent.rmdir()
    program = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); input()"
    machine = spawn(program, str(open_layer / "writable.ext4"))
    assert line_of(machine) == "1"
    why = f"what was written to it has not come back to {alive}, whose next start takes it up"
    stays = f"left alone: writable layer {kept}: {why}"
    assert sorted(site.gc("--dry-run")) == [stays, f"would remove: writable layer {unwanted}"]
    assert sorted(site.gc()) == [stays, f"removed: writable layer {unwanted}"]
    machine.kill()
    machine.wait()
    assert sorted(site.gc()) == [stays, f"removed: writable layer {open_layer}"]
    assert site.gc() == [stays]


def test_names_that_are_no_keys_are_nobody_s(site: _Site) -> None:
    for path in (site.data / "backups", site.host.state / "vm" / "x", site.data / _KEY.upper()):
        path.mkdir(parents=True)
    site.cell.tell("touch", "/run/netns/qemubox-mine", f"/run/netns/{_KEY}")
    before = site.left()
    assert site.gc() == []
    assert site.left() == before


def test_a_plugin_that_fails_is_told_and_asked_again_next_time(site: _Site) -> None:
    site.network({"type": "held"})
    site.cell.plugin("held", f"cat >/dev/null; [ $CNI_COMMAND != DEL ] || exit 3; {_RESULT}")
    site.set_up()
    site.lose_power()
    (line,) = site.gc(status=1)
    assert line.startswith(f"cannot remove: attachment qemubox-{site.key} eth0 to net: cni ")
    assert "plugin 'held' ended with exit status 3" in line
    (line,) = site.gc(status=1)
    assert line.startswith(f"cannot remove: container {site.shim.directory}: cni ")
    site.cell.plugin("held", f"cat >/dev/null; {_RESULT}")
    assert site.gc() == [f"removed: container {site.shim.directory}"]
    assert site.left() == []


def test_two_at_once_and_a_delete_that_comes_meanwhile(site: _Site) -> None:
    site.network({"type": "held"})
    site.cell.plugin("held", _holding(site, "DEL", _RESULT))
    site.set_up()
    (site.shim.bundle / "qemubox").symlink_to(site.shim.directory)
    with subprocess.Popen(site.words(), env=site.shim.environment, stdout=subprocess.PIPE, text=True) as first:
        assert (site.cell.path / "runs").read_text() == "DEL\n"
        assert site.gc() == []
        words = site.shim.words("-bundle", str(site.shim.bundle), "delete")
        done = site.cell.run(*words, env=site.shim.environment)
        assert (done.returncode, done.stderr) == (1, "c1: not everything could be removed: shim 0 does not die\n")
        (site.cell.path / "go").write_text("\n")
        out, _ = first.communicate(timeout=50)
        assert (first.returncode, out) == (0, f"removed: container {site.shim.directory}\n")
    assert site.left() == []


def test_starts_that_come_meanwhile_succeed(site: _Site) -> None:
    """The directory may be taken away between its making and its claim; then it is made again."""
    running = [subprocess.Popen(site.words(), env=site.shim.environment) for _ in range(4)]
    shims = [site.host.shim(f"c{number}") for number in range(2, 6)]
    for shim in shims:
        assert shim.start().status == 0
    assert [child.wait(50) for child in running] == [0] * 4
    assert site.gc() == []
    for shim in shims:
        assert shim.connect().shim_pid == shim.pid


def test_a_directory_that_was_only_made_goes_without_a_word(site: _Site) -> None:
    site.shim.directory.mkdir(parents=True)
    assert (site.gc("--dry-run"), site.gc()) == ([], [])
    assert site.left() == []


def test_leases_that_say_of_nobody_whose_they_are(site: _Site) -> None:
    site.set_up()
    assert len(site.gc()) == 1
    empty = site.cell.leases / "net" / "10.99.0.77"
    empty.touch()
    with (site.cell.leases / "net" / "lock").open() as lock:  # host-local is at work
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert site.gc() == []
    (site.cell.leases / "net" / "10.99.0.78").write_text("another's\r\neth0")
    assert site.gc("--dry-run") == [f"would remove: lease {empty}"]
    assert site.gc() == [f"removed: lease {empty}"]
    assert site.left() == ["lease 10.99.0.78"]


def test_a_network_that_is_broken_is_told(site: _Site) -> None:
    (site.cell.conf_dir / "net.conflist").write_text('{"cniVersion": "1.0.0", "name": "net"}')
    (line,) = site.gc(status=1)
    assert line.startswith(f"cannot remove: network of the configuration: {site.cell.conf_dir}/net.conflist: ")


def test_gc_of_a_network_names_those_that_are_attached_when_nobody_else_can_be(site: _Site) -> None:
    """It asks who that is when it has the lock. Somebody who comes while it waits for that is not to be forgotten."""
    site.cell.plugin("held", f"tee {site.cell.path}/$CNI_COMMAND; cat >/dev/null")
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "held"}]}
    (site.cell.conf_dir / "net.conflist").write_text(json.dumps(network))
    site.set_up()
    (cached,) = (site.cell.cache_dir / "results").iterdir()
    comes = cached.rename(site.cell.path / cached.name)
    alive = claim(site.shim.directory, deadline_s=0)
    with (site.host.state / "cni.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(site.words(), env=site.shim.environment) as collecting:
            until(lambda: b"flock" in _children(collecting.pid), "gc waits for the lock")
            comes.rename(cached)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert collecting.wait(50) == 0
    os.close(alive)
    told = json.loads((site.cell.path / "GC").read_text())
    assert told["cni.dev/valid-attachments"] == [{"containerID": f"qemubox-{site.key}", "ifname": "eth0"}]
    assert site.gc("--json") != []
    assert not site.shim.directory.exists()


def _children(pid: int) -> bytes:
    """The command lines of a process's children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return b" ".join(Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


def test_it_is_root_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="run it as root"):
        gc.run(Config(), dry_run=False, as_json=False)


def test_what_was_killed_half_way_is_the_next_one_s(site: _Site) -> None:
    site.layer()
    Journal(_made(site.shim)).record("path", path=str(site.data / site.key))
    assert site.gc() == [f"removed: container {site.shim.directory}"]
    assert site.left() == []


def _made(shim: Shim) -> Path:
    shim.directory.mkdir(parents=True)
    return shim.directory
