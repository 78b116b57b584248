"""What an administrator does with a machine that runs: ps, logs, console, exec --vm, qmp, a debugger, a report."""

import contextlib
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from harness.box import Box
from harness.deadline import eventually
from harness.debugger import attached
from harness.images import BUSYBOX
from harness.qemubox import RUNTIME, Sections
from harness.terminal import terminal

pytestmark = [pytest.mark.on("2"), pytest.mark.timeout(240)]

_DEADLINE_S = 60.0
_RIP = 16
_VERBOSE: Sections = {"vm": {"kernel_args": "loglevel=8"}}


@contextlib.contextmanager
def _container(vm: Box, changes: Sections | None = None) -> Iterator[str]:
    """One that does nothing, started with that configuration."""
    with vm.qemubox.changed(changes or {}):
        name = vm.start("sleep", "600")
    yield name
    vm.kill(name)
    vm.wait_stopped(name)
    vm.delete_task(name).checked()
    vm.remove(name).checked()


def _done(vm: Box, *words: str, status: int = 0) -> str:
    """What the command prints, on standard output or, where it fails, on standard error."""
    done = vm.qemubox.command(*words)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def _start(vm: Box, *words: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    command = vm.containerd.cell.inside([str(vm.qemubox.bin / "qemubox"), *words])
    output = subprocess.PIPE if stdin in (subprocess.DEVNULL, subprocess.PIPE) else stdin
    return subprocess.Popen(command, stdin=stdin, stdout=output, stderr=output, env=os.environ | vm.qemubox.environment)


def test_ps_and_inspect(vm: Box) -> None:
    with _container(vm) as name:
        (line,) = json.loads(_done(vm, "ps", "--json"))
        assert (line["id"], line["state"], line["start"]) == (name, "running", "clone")
        assert line["task_pid"] == vm.task_pid(name)
        assert line["cpu_s"] > 0
        assert line["rss"] > 10 << 20
        shown = vm.inspect(name)
        assert shown["qemu_pid"] == line["qemu_pid"]
        assert isinstance(shown["qemu"], list)
        assert "-gdb" not in shown["qemu"]
        vm.containerd.ctr("tasks", "pause", name).checked()
        assert "  paused  " in _done(vm, "ps")
        vm.containerd.ctr("tasks", "resume", name).checked()
        assert _done(vm, "ps", "-q") == f"{name}\n"
        # A shim that stands still is shown as what it is.
        shim = vm.shim(name)
        shim.suspend()
        try:
            assert "  no answer  " in _done(vm, "ps")
        finally:
            shim.resume()
    assert json.loads(_done(vm, "ps", "--json")) == []


def test_logs_to_the_end_of_the_machine(vm: Box) -> None:
    with _container(vm, _VERBOSE) as name:
        assert f"qemubox logs --console --namespace default {name}" in _done(vm, "logs", name)
        assert "Linux version" in _done(vm, "logs", "--console", name)
        following = _start(vm, "logs", "--console", "-f", name)
        _done(vm, "exec", "--vm", name, "--", "python3.13", "-IS", "-c", "open('/dev/kmsg', 'w').write('<1>a mark')")
    said, _ = following.communicate(timeout=_DEADLINE_S)
    assert following.returncode == 0
    assert said.count(b"Linux version") == 1
    assert b"a mark" in said


def test_a_program_in_the_guests_own_root(vm: Box) -> None:
    with _container(vm) as name:
        python = ("exec", "--vm", name, "--", "python3.13", "-IS", "-c")
        assert _done(vm, *python, "import os; print(os.getpid() > 1, os.readlink('/proc/1/exe'))").split() == [
            "True",
            "/usr/bin/python3.13",
        ]
        assert name in _done(vm, "exec", "--vm", name, "--", "crun", "--root", "/run/qemubox/crun/state", "list")
        assert _done(vm, *python, "import sys; sys.exit('as the program says')", status=1) == "as the program says\n"
        assert vm.qemubox.command(*python, "import os; os.kill(os.getpid(), 9)").returncode == 137
        assert "no such program" in _done(vm, "exec", "--vm", name, "--", "bash", status=1)
        late = ("exec", "--vm", "--timeout", "2", name, "--", "python3.13", "-IS", "-c", "import time; time.sleep(600)")
        assert "the program was ended after 2 s" in _done(vm, *late, status=124)
        reading = _start(vm, "exec", "--vm", "-i", *python[2:], "print(len(input()))", stdin=subprocess.PIPE)
        said, _ = reading.communicate(b"x" * 300_000 + b"\n", timeout=_DEADLINE_S)
        assert said == b"300000\n"


def test_who_goes_away_ends_the_program(vm: Box) -> None:
    with _container(vm) as name:
        waiting = _start(vm, "exec", "--vm", name, "--", "python3.13", "-IS", "-c", "import time; time.sleep(601)")
        seek = (
            "import os; lines = [open(f'/proc/{p}/cmdline', 'rb').read() for p in os.listdir('/proc') if p.isdigit()];"
            " print(sum(b'(601)' in line for line in lines))"
        )

        def running() -> int:
            return int(_done(vm, "exec", "--vm", name, "--", "python3.13", "-IS", "-c", seek))

        # One of them is who seeks: the words are in its own command line.
        eventually(lambda: running() == 2, "the program runs", _DEADLINE_S)
        waiting.kill()
        waiting.communicate()
        eventually(lambda: running() == 1, "the program has ended", _DEADLINE_S)


def test_qmp(vm: Box) -> None:
    with _container(vm) as name:
        assert json.loads(_done(vm, "qmp", name, "query-status"))["status"] == "running"
        assert json.loads(_done(vm, "qmp", name, "qom-get", '{"path": "/machine", "property": "type"}')).startswith(
            "pc-q35"
        )
        assert "stop may change the machine behind its shim's back" in _done(vm, "qmp", name, "stop", status=1)
        assert "QEMU refused" in _done(vm, "qmp", name, "query-nothing", status=1)
        assert "is not JSON" in _done(vm, "qmp", name, "query-status", "{", status=1)
        assert json.loads(_done(vm, "qmp", "--force", name, "stop")) == {}
        assert json.loads(_done(vm, "qmp", name, "query-status"))["running"] is False
        assert json.loads(_done(vm, "qmp", "--force", name, "cont")) == {}
        vm.containerd.ctr("tasks", "exec", "--exec-id", "x", name, "true").checked()


def test_the_console_of_an_ordinary_machine_answers_nobody(vm: Box) -> None:
    with _container(vm) as name, terminal(24, 80) as screen:
        (path,) = vm.containerd.cell.path("/run/qemubox/vm").glob("*/console.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        attached_ = _start(vm, "console", name, stdin=screen.theirs)
        screen.read_until("nobody answers in this guest", _DEADLINE_S)
        watching = _start(vm, "console", name)
        _done(vm, "exec", "--vm", name, "--", "python3.13", "-IS", "-c", "open('/dev/kmsg', 'w').write('<1>a mark')")
        screen.read_until("a mark", _DEADLINE_S)
        screen.type(b"\x1d")
        screen.read_until("left", _DEADLINE_S)
        assert attached_.wait(_DEADLINE_S) == 0
    said, told = watching.communicate(timeout=_DEADLINE_S)
    assert b"a mark" in said
    assert b"somebody else has the keyboard" in told
    assert b"the machine has ended" in told


def test_a_prompt_on_the_console(vm: Box) -> None:
    with _container(vm, {"debug": {"guest_console": True}}) as name, terminal(24, 80) as screen:
        shown = vm.inspect(name)
        assert shown["guest_console"] is True
        assert shown["template"] == ""  # no ordinary one
        attached_ = _start(vm, "console", name, stdin=screen.theirs)
        screen.read_until("^] leaves", _DEADLINE_S)
        screen.read_until("qemubox> ", _DEADLINE_S, again=lambda: screen.type(b"\r"))
        screen.type(b"print(6 * 7, os.getuid())\r")
        screen.read_until("42 0", _DEADLINE_S)
        screen.type(b"crun('list')\r")
        screen.read_until("running", _DEADLINE_S)
        screen.type(b"while True: pass\r\r")
        screen.type(b"\x03")
        screen.read_until("KeyboardInterrupt", _DEADLINE_S)
        screen.type(b"\x1d")
        screen.read_until("left", _DEADLINE_S)
        assert attached_.wait(_DEADLINE_S) == 0
        vm.containerd.ctr("tasks", "exec", "--exec-id", "x", name, "true").checked()


def test_a_debugger_of_the_guests_kernel(vm: Box) -> None:
    """On a template's clone: it is an option of QEMU's, of which the guest knows nothing."""
    with _container(vm, {"debug": {"gdb": True}}) as name:
        shown = vm.inspect(name)
        assert shown["template"]
        assert isinstance(shown["gdb"], str)
        path = vm.containerd.cell.path(shown["gdb"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with attached(path) as debugger:
            assert b"qXfer:features:read+" in debugger.ask(b"qSupported")
            assert debugger.ask(b"?").startswith(b"T")
            address = debugger.register(_RIP)
            assert address
            assert len(debugger.ask(b"m%x,8" % address)) == 16  # its code
            assert json.loads(_done(vm, "qmp", name, "query-status"))["running"] is False
        assert json.loads(_done(vm, "qmp", name, "query-status"))["running"] is True
        vm.containerd.ctr("tasks", "exec", "--exec-id", "x", name, "true").checked()


def test_a_report(vm: Box) -> None:
    """Of a container that has a secret in its environment, and another in a file."""
    place = vm.containerd.cell.directory / "tmp"
    with _container(vm) as name:
        vm.containerd.ctr(
            "tasks", "exec", "--exec-id", "x", name, "sh", "-c", "echo secret-in-a-file > /file"
        ).checked()
        environment = ("run", "-d", "--null-io", "--runtime", RUNTIME, "--env", "TOKEN=secret-in-the-environment")
        other = vm.new_id()
        vm.containerd.ctr(*environment, BUSYBOX, other, "sleep", "600", deadline_s=_DEADLINE_S).checked()
        said = _done(vm, "debug", "bundle", "-o", str(place / "report.tar.gz"))
        vm.kill(other)
        vm.wait_stopped(other)
        vm.delete_task(other).checked()
        vm.remove(other).checked()
    with tarfile.open(place / "report.tar.gz") as archive:
        found = {entry.name: file.read() for entry in archive if (file := archive.extractfile(entry)) is not None}
    (place / "report.tar.gz").unlink()
    assert {json.loads(data)["id"] for path, data in found.items() if path.endswith("machine.json")} == {name, other}
    assert sum(path.endswith("/console") for path in found) <= 2
    assert b"-sandbox" in next(data for path, data in found.items() if path.endswith("/arguments.txt"))
    assert [path for path, data in found.items() if b"secret-in" in data] == []
    assert "timeline.jsonl: " in said
    assert "config.json: cannot" not in said
