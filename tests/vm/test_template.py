"""Machines that start as clones of a template: they are machines of their own, and no container waits for a template.

The harness has the template made once (harness/qemubox.py), so every other test runs in clones, too.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.box import Box
from shim.template.store import METADATA, STATE

_TWIN_TESTS = "od -An -tx1 -N32 /dev/urandom; cat /proc/sys/kernel/random/boot_id; hostname; date +%s"


@pytest.fixture
def template(vm: Box) -> Iterator[Path]:
    """The template's directory. A test may damage or remove it: it is made anew."""
    (directory,) = (vm.qemubox.cache / "templates").iterdir()
    yield directory
    assert vm.qemubox.command("template", "build").returncode == 0
    assert [path.name for path in (vm.qemubox.cache / "templates").iterdir()] == [directory.name]


def _last_start(box: Box) -> dict[str, object]:
    """The timeline of the machine that started last."""
    found = json.loads(box.containerd.cell.path("/run/qemubox/timeline.jsonl").read_text().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def _assert_boots(box: Box, *words: str) -> None:
    """A container runs in a machine that has booted, and the log says why it had to."""
    offset = box.containerd.log_size()
    assert box.run("echo", "hello").checked().text == "hello"
    assert _last_start(box)["template"] is False
    log = box.containerd.log_tail(offset, limit=1 << 20)
    for word in words:
        assert re.search(word, log), log


@pytest.mark.every_containerd
def test_a_container_runs_in_a_clone(vm: Box) -> None:
    offset = vm.containerd.log_size()
    assert vm.run("echo", "hello").checked().text == "hello"
    start = _last_start(vm)
    assert start["template"] is True
    phases = start["phases"]
    assert isinstance(phases, dict)
    order = [name for name in phases if name in ("spawned", "restored", "furnished", "answered", "created")]
    assert order == ["spawned", "restored", "furnished", "answered", "created"]
    assert "how=clone" in vm.containerd.log_tail(offset, limit=1 << 20)


@pytest.mark.timeout(400)
@pytest.mark.on("1.6")
def test_clones_are_nobody_s_twins(vm: Box, pytestconfig: pytest.Config) -> None:
    """Random numbers, of the kernel and of vminitd, boot id and name differ, and the clock is right.

    For the first thing that runs in each of `--clones` of them, two at a time.
    """
    clones: int = pytestconfig.getoption("clones")
    offset = vm.containerd.log_size()

    def ask(_: int) -> tuple[str, ...]:
        before = time.time()
        *names, clock = vm.run("sh", "-c", _TWIN_TESTS).checked().text.splitlines()
        assert before - 1 <= int(clock) <= time.time() + 1
        return tuple(name.strip() for name in names)

    with ThreadPoolExecutor(2) as pool:
        seen = list(pool.map(ask, range(clones)))
    log = vm.containerd.log_tail(offset, limit=1 << 22)
    assert len(re.findall("how=clone", log)) == clones
    for values in (*zip(*seen, strict=True), tuple(re.findall("nonce=([0-9a-f]{16})", log))):
        assert len(values) == len(set(values)) == clones, values


def _cut_short(state: Path) -> None:
    with state.open("r+b") as file:
        file.truncate(state.stat().st_size // 2)


def _change_one_byte(state: Path) -> None:
    with state.open("r+b") as file:
        file.seek(state.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes((byte ^ 0xFF,)))


def _let_others_write(state: Path) -> None:
    state.chmod(0o666)


@pytest.mark.on("1.6")
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut_short, "has \\d+ bytes, not"),
        (_change_one_byte, "was changed"),
        (_let_others_write, "by others than root"),
    ],
)
def test_a_damaged_template_is_not_used(vm: Box, template: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(template / STATE)
    _assert_boots(vm, "level=warning", words)
    verified = vm.qemubox.command("template", "verify")
    assert verified.returncode == 1
    assert re.search(words, verified.stderr)


@pytest.mark.release
@pytest.mark.on("1.6")
@pytest.mark.parametrize("beginning", [0, 4096])
def test_qemu_that_dies_of_a_template_is_replaced_by_one_that_boots(vm: Box, template: Path, beginning: int) -> None:
    """A state that says it is good and is not: QEMU ends at its first bytes, or half way through."""
    state = template / STATE
    known = json.loads((template / METADATA).read_text())
    with state.open("r+b") as file:
        file.seek(known["memory_size"] + beginning)
        file.write(b"\xa5" * 4096)
    found = state.stat()
    known |= {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    (template / METADATA).write_text(json.dumps(known))
    _assert_boots(vm, "level=warning", "clone failed", "restoring the template")
    assert "damaged" in vm.qemubox.command("template", "verify").stderr


@pytest.mark.on("1.6")
def test_without_a_template_machines_boot(vm: Box, template: Path) -> None:
    assert vm.qemubox.command("template", "rm", "--all").returncode == 0
    assert not template.exists()
    _assert_boots(vm, "level=info", "no template for this machine")


@pytest.mark.on("1.6")
def test_templates_switched_off(vm: Box) -> None:
    with vm.qemubox.changed({"template": {"mode": "off"}}):
        _assert_boots(vm)
        refused = vm.qemubox.command("template", "build")
    assert refused.returncode == 1
    assert refused.stderr.startswith('qemubox: template.mode = "off"')


@pytest.mark.release
@pytest.mark.on("1.6")
def test_a_template_of_another_machine_is_not_used(vm: Box, template: Path) -> None:
    """One more word on its kernel's command line makes it another machine."""
    with vm.qemubox.changed({"vm": {"kernel_args": "quiet"}}):
        _assert_boots(vm, "no template for this machine")


@pytest.mark.release
@pytest.mark.on("1.6")
def test_a_namespace_has_a_template_of_its_own(vm: Box, template: Path) -> None:
    with vm.qemubox.changed({"template": {"mode": "per-namespace"}}):
        _assert_boots(vm, "no template for this machine")
        assert vm.qemubox.command("template", "build").returncode == 1
        assert vm.qemubox.command("template", "build", "--namespace", "default").returncode == 0
        vm.run("true").checked()
        assert _last_start(vm)["template"] is True
        own = f"{template.name}.default"
        assert vm.qemubox.command("template", "rm", own).returncode == 0


@pytest.mark.on("1.6")
def test_a_template_removed_under_its_clones(vm: Box, template: Path) -> None:
    container = vm.start_trapping(17)
    assert vm.qemubox.command("template", "rm", template.name).returncode == 0
    vm.kill(container, "TERM").checked()
    vm.wait_stopped(container)
    assert "non-zero exit code 17" in vm.delete_task(container).error
    vm.remove(container).checked()


@pytest.mark.release
@pytest.mark.on("1.6")
def test_a_template_changed_under_its_clones(vm: Box, template: Path) -> None:
    """They have its memory as it was; the next machine boots."""
    container = vm.start_trapping(17)
    with (template / STATE).open("r+b") as file:
        file.write(os.urandom(64 << 20))
    _assert_boots(vm, "level=warning", "was changed")
    hello = vm.containerd.ctr("tasks", "exec", "--exec-id", "hello", container, "echo", "hello")
    assert hello.checked().text == "hello"
    vm.kill(container, "TERM").checked()
    vm.wait_stopped(container)
    assert "non-zero exit code 17" in vm.delete_task(container).error
    vm.remove(container).checked()


@pytest.mark.on("1.6")
def test_the_command_shows_what_is_there(vm: Box, template: Path) -> None:
    (entry,) = json.loads(vm.qemubox.command("template", "list", "--json").stdout)
    assert (entry["name"], entry["problem"]) == (template.name, "")
    assert entry["metadata"]["size"] == (template / STATE).stat().st_size
    assert vm.qemubox.command("template", "list").stdout.startswith(template.name[:12])
    assert vm.qemubox.command("template", "verify", template.name[:12]).stdout.endswith("good\n")
    unknown = vm.qemubox.command("template", "rm", "nothing")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    # Nobody but root can read it, least of all QEMU's user.
    assert [path.stat().st_mode & 0o077 for path in (template.parent, template, template / STATE)] == [0, 0, 0]
