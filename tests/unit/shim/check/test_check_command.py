"""`qemubox check` as a program: its JSON, its exit status, its deadlines, and what it leaves. Needs root."""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shim import config as config_module
from shim import gc
from shim.check import command, runner, scratch
from shim.check.host import Host
from shim.check.line import Level, Line, Report
from shim.check.runner import Area
from shim.config import Config, load
from shim.errors import HostError, StateError

_ROOT = Path(__file__).parents[4]
_KEYS = {"status", "area", "what", "found", "mend"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A configuration with directories of its own."""
    path = tmp_path / "config.toml"
    path.write_text(
        "".join(f'{key}_dir = "{tmp_path}/{key}"\n' for key in ("state", "data", "cache")).join(("[runtime]\n", ""))
    )
    return {**os.environ, "QEMUBOX_CONFIG": str(path), "PYTHONPATH": str(_ROOT)}


def _check(environ: dict[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "shim.cli", "check", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        cwd="/",
    )


def test_all_of_it_quickly(environ: dict[str, str], tmp_path: Path) -> None:
    """The document's shape; the exit status is that of its lines; and nothing is left."""
    before = _traces()
    done = _check(environ, "--json", "--quick")
    assert _traces() == before
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert set(document) == {"format", "version", "status", "quick", "counts", "lines"}
    assert (document["format"], document["quick"]) == (1, True)
    lines = document["lines"]
    assert all(set(line) == _KEYS and all(isinstance(value, str) for value in line.values()) for line in lines)
    assert {line["area"] for line in lines} == {"configuration", "rights", *(area.name for area in runner.AREAS)}
    levels = [line["status"] for line in lines]
    assert document["counts"] == {level: levels.count(level) for level in ("ok", "warning", "failure")}
    assert all(bool(line["mend"]) == (line["status"] != "ok") for line in lines)
    assert done.returncode == (1 if "failure" in levels else 0)
    assert "could not be looked at" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml"]


def _traces() -> tuple[set[str], set[str]]:
    """Interfaces of the host, and mounts of namespaces that are ours by name."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    links = {name for name in os.listdir("/sys/class/net") if name.startswith(("check", "loqb"))}
    return links, {line for line in mounts if scratch.KEY in line}


def test_as_people_see_it(environ: dict[str, str]) -> None:
    done = _check(environ, "--quick")
    *lines, last = done.stdout.splitlines()
    assert all(line.startswith(("ok ", "warning ", "failure ", " " * 23 + "-> ")) for line in lines)
    assert "ok, " in last
    assert last.endswith("failures")


def test_a_broken_configuration_is_one_failure_and_the_rest_is_looked_at(environ: dict[str, str]) -> None:
    path = Path(environ["QEMUBOX_CONFIG"])
    path.write_text(path.read_text() + "[vm]\naccel = 3\n")
    done = _check(environ, "--json", "--quick")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert [line["status"] for line in document["lines"] if line["area"] == "configuration"] == ["failure"]
    assert {line["area"] for line in document["lines"]} >= {"qemu", "network", "containerd"}


def test_without_root_only_that_is_told(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert command.check(quick=True, as_json=False, environ=environ) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("failure  rights        user: this is user 1000")
    assert lines[2].endswith("-> sudo qemubox check")
    assert lines[3] == "1 ok, 0 warnings, 1 failures"


@pytest.mark.parametrize(
    ("levels", "status"), [((), 0), (("ok",), 0), (("warning", "ok"), 0), (("warning", "failure"), 1)]
)
def test_exit_status(
    levels: tuple[str, ...], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(tell: Callable[[Line], None], **_: object) -> None:
        for level in levels:
            tell(Line(Level(level), "a", "b", "c"))

    monkeypatch.setattr(command, "_look", look)
    assert command.run(argparse.Namespace(quick=False, json=True)) == status
    assert json.loads(capsys.readouterr().out)["counts"]["ok"] == levels.count("ok")


async def _raise(_host: Host, report: Report) -> None:
    report.ok("first", "told")
    raise RuntimeError("odd\nthing")


async def _raise_ours(_host: Host, _report: Report) -> None:
    raise HostError("it failed", hint="do this")


async def _hang(_host: Host, report: Report) -> None:
    report.ok("first", "told")
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("look", "found", "mend"),
    [
        (_raise, "could not be looked at: RuntimeError: odd thing", "report it with the output of qemubox check"),
        (_raise_ours, "it failed", "do this"),
        (_hang, "did not end in time", "call it again"),
    ],
)
async def test_what_fails_is_a_line(look: Callable[[Host, Report], Awaitable[None]], found: str, mend: str) -> None:
    lines = await runner.look_at(Host(Config()), Area("x", look), deadline_s=0.1)
    assert (lines[-1].level, lines[-1].found, lines[-1].mend) == (Level.FAILURE, found, mend)
    assert look is _raise_ours or lines[0].found == "told"


def test_a_thread_that_hangs_in_the_kernel_holds_nobody_up() -> None:
    """Nor does it keep the process from ending."""
    program = (
        "import asyncio, time\nfrom shim.check.thread import in_thread\n"
        "async def main():\n async with asyncio.timeout(0.1): await in_thread(lambda: time.sleep(1000))\n"
        "asyncio.run(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=20, cwd=_ROOT
    )
    assert done.stderr.rstrip().endswith("TimeoutError")


def test_a_state_directory_that_cannot_be_made_is_told(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    done = _check(environ, "--json", "--quick")
    document = json.loads(done.stdout)
    failed = [line for line in document["lines"] if line["status"] == "failure" and line["area"] == "space"]
    assert any("cannot be made" in line["found"] for line in failed)
    assert done.returncode == 1


# What a check has made when it is killed: a process that its journal names, and a file.
_KILLED = """
import subprocess, sys, time
from pathlib import Path
from shim.check import scratch
with scratch.directory(Path(sys.argv[1])) as (directory, journal):
    journal.record("process", marker="check-left-" + sys.argv[2])
    subprocess.Popen(["/bin/sh", "-c", "sleep 1000; : check-left-" + sys.argv[2]], start_new_session=True)
    (directory / "console").touch()
    print("ready", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def killed(tmp_path: Path) -> str:
    """The marker of the process that a killed check has left, below tmp_path/state."""
    marker = f"{os.getpid()}-{time.monotonic_ns()}"
    words = [sys.executable, "-c", _KILLED, str(tmp_path / "state"), marker]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=_ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    assert _alive(marker)
    return marker


def _alive(marker: str) -> bool:
    wanted = f"check-left-{marker}".encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if wanted in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:  # it has ended
            continue
    return False


def test_a_killed_one_is_cleared_away_by_the_next(killed: str, environ: dict[str, str], tmp_path: Path) -> None:
    _check(environ, "--quick")
    assert not _alive(killed)
    assert list((tmp_path / "state" / "vm").iterdir()) == []


def test_a_killed_one_is_cleared_away_by_gc(killed: str, environ: dict[str, str], tmp_path: Path) -> None:
    findings = list(gc.sweep(load(environ), dry_run=False))
    assert any(scratch.KEY in finding.name and finding.outcome == "removed" for finding in findings)
    assert not _alive(killed)


def test_another_one_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_CLAIM_S", 0.2)
    with (
        scratch.directory(tmp_path),
        pytest.raises(StateError, match="another qemubox check"),
        scratch.directory(tmp_path),
    ):
        pass


def test_the_command_line_imports_none_of_it() -> None:
    program = "import sys, shim.check.command; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30, cwd=_ROOT
    )
    loaded = {name for name in done.stdout.split() if name.startswith("shim.check")}
    assert loaded == {"shim.check", "shim.check.command"}
    assert "grpclib" not in done.stdout.split()


def test_the_configuration_s_path_is_the_shim_s(environ: dict[str, str]) -> None:
    assert config_module.read(environ)[0] == environ["QEMUBOX_CONFIG"]
