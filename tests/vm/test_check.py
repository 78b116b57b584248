"""`qemubox check` with its boots: on a host where containers run it finds no fault; killed while a machine boots it
leaves nothing that the next one does not clear away.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.box import Box
from harness.deadline import eventually
from harness.flavours import CHECKOUT
from harness.qemubox import BINARY, built_parts
from shim.check import scratch
from shim.reclaim import command_line

_DEADLINE_S = 60.0

Line = dict[str, str]


def _lines(document: str) -> list[Line]:
    lines = json.loads(document)["lines"]
    assert isinstance(lines, list)
    return lines


@pytest.mark.on("2")
def test_where_containers_run_it_finds_no_fault(vm: Box) -> None:
    """KVM or not: without it, that is a warning."""
    assert vm.run("echo", "hello").checked().text == "hello"
    done = vm.qemubox.command("check", "--json")
    lines = _lines(done.stdout)
    assert [line for line in lines if line["status"] == "failure"] == []
    assert done.returncode == 0
    (accelerator,) = (line for line in lines if line["what"] == "accelerator")
    assert accelerator["status"] == ("ok" if accelerator["found"].startswith("KVM: ") else "warning")
    (boot,) = (line for line in lines if line["what"] == "boot")
    assert boot["status"] == "ok"
    assert boot["found"].startswith("the guest was up in")
    (template,) = (line for line in lines if line["area"] == "template")
    assert template["status"] == "ok"
    assert template["found"].endswith(", fits")
    (service,) = (line for line in lines if line["area"] == "service")
    assert "of this code" in service["found"] or not vm.containerd.service.running


def test_each_containerd_and_its_way_to_the_shim(vm: Box) -> None:
    lines = _lines(vm.qemubox.command("check", "--json", "--quick").stdout)
    of_containerd = [line for line in lines if line["area"] == "containerd"]
    assert of_containerd[0]["status"] == "ok"
    assert of_containerd[0]["found"].endswith(f"process {vm.containerd.pid}")
    assert any(line["what"] == f"{vm.qemubox.bin}/{BINARY}" and line["status"] == "ok" for line in of_containerd)
    assert [line for line in of_containerd if line["status"] == "failure"] == []


class Check:
    """The command of this checkout, with directories of its own."""

    def __init__(self, directory: Path) -> None:
        kernel, image, _ = built_parts()
        self.state = directory / "state"
        config = directory / "config.toml"
        config.write_text(
            f'[runtime]\nstate_dir = "{self.state}"\ndata_dir = "{directory}"\ncache_dir = "{directory}"\n'
            f'[vm]\nkernel = "{kernel}"\nimage = "{image}"\n[network]\nname = "none"\n'
        )
        self._environment = {**os.environ, "QEMUBOX_CONFIG": str(config)}
        self.started: subprocess.Popen[str] | None = None

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Begin one."""
        self.started = subprocess.Popen(
            [sys.executable, "-m", "shim.cli", "check", "--json", *words],
            cwd=CHECKOUT,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self.started

    def machines(self) -> list[psutil.Process]:
        """The QEMUs that it has started."""
        assert self.started is not None
        children = psutil.Process(self.started.pid).children(recursive=True)
        return [child for child in children if b"\0-accel\0" in command_line(child.pid)]


@pytest.fixture
def check(tmp_path: Path) -> Iterator[Check]:
    """Ended, whatever the test has left of it."""
    check = Check(tmp_path)
    yield check
    if check.started is not None:
        with check.started as child:
            child.kill()


def test_one_that_is_told_to_end_while_a_machine_boots(check: Check) -> None:
    """It undoes everything itself."""
    with check.start() as child:
        eventually(lambda: bool(check.machines()), "a machine boots", _DEADLINE_S)
        machines = check.machines()
        child.send_signal(signal.SIGTERM)
        assert child.wait(_DEADLINE_S) == 130
    _, alive = psutil.wait_procs(machines, timeout=0)
    assert alive == []
    assert not check.state.exists()


def test_one_that_is_killed_while_a_machine_boots(check: Check) -> None:
    with check.start() as child:
        eventually(lambda: bool(check.machines()), "a machine boots", _DEADLINE_S)
        machines = check.machines()
        child.send_signal(signal.SIGKILL)
        child.wait(_DEADLINE_S)
    _, alive = psutil.wait_procs(machines, timeout=_DEADLINE_S)
    assert alive == []
    assert [path.name for path in (check.state / "vm").iterdir()] == [scratch.KEY]
    with check.start("--quick") as after:
        lines = _lines(after.communicate(timeout=_DEADLINE_S)[0])
    assert "what a killed check has left" not in json.dumps(lines)
    assert list((check.state / "vm").iterdir()) == []
