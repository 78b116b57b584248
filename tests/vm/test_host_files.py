"""Files of the host that a client mounts: the container sees what is written into them later, as by a bind mount."""

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, Box
from harness.deadline import eventually

pytestmark = pytest.mark.timeout(150)

# Says what is in the file whenever that is something else.
_TELL = 'last=; while :; do now=$(cat /etc/hosts); [ "$now" = "$last" ] || echo "$now"; last=$now; sleep 0.05; done'


@pytest.fixture
def hosts(box: Box) -> Iterator[Path]:
    """A file of the host's, to be mounted."""
    path = box.containerd.cell.directory / f"hosts-{box.new_id()}"
    path.write_text("one\n")
    yield path
    path.unlink()


def _mounted(path: Path, how: str = "ro") -> tuple[str, ...]:
    return "--mount", f"type=bind,src={path},dst=/etc/hosts,options=rbind:{how}"


def _write(path: Path, text: str) -> None:
    """In place and in one go, as the tests' container looks again and again."""
    with path.open("r+b", buffering=0) as file:
        file.write(text.encode())


@contextmanager
def _telling(box: Box, path: Path) -> Iterator[Callable[[], str]]:
    """A container that says what is in the file: calling gives the next line."""
    with box.running("sh", "-c", _TELL, options=_mounted(path)) as process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        yield lambda: _line(process, selector)
        container = _only_task(box)
        box.kill(container).checked()
        process.wait(RUN_DEADLINE_S)


def _line(process: "subprocess.Popen[bytes]", selector: selectors.BaseSelector) -> str:
    assert process.stdout is not None
    line, deadline = b"", time.monotonic() + RUN_DEADLINE_S
    while not line.endswith(b"\n"):
        assert selector.select(max(0.0, deadline - time.monotonic())), f"it says nothing more than {line!r}"
        data = os.read(process.stdout.fileno(), 1)
        assert data, process.communicate()[1].decode()
        line += data
    return line.decode()


def _only_task(box: Box) -> str:
    (line,) = box.containerd.ctr("tasks", "ls", "-q").checked().text.splitlines()
    return line


def test_what_the_host_writes_is_seen(box: Box, hosts: Path) -> None:
    """Also what was written while the container stood still."""
    with _telling(box, hosts) as told:
        assert told() == "one\n"
        _write(hosts, "two\n")
        assert told() == "two\n"
        container = _only_task(box)
        box.containerd.ctr("tasks", "pause", container).checked()
        _write(hosts, "six\n")
        box.containerd.ctr("tasks", "resume", container).checked()
        assert told() == "six\n"
        hosts.write_text("a line longer than there was\n")
        while told() != "a line longer than there was\n":  # runc's shows it empty in between
            pass


def test_what_is_put_in_its_place_is_not_seen(box: Box, hosts: Path) -> None:
    """rename(2) makes it another file, and a bind mount stays with the first one. Nothing comes of its end either."""
    with _telling(box, hosts) as told, hosts.open("r+b", buffering=0) as first:
        assert told() == "one\n"
        new = hosts.with_suffix(".new")
        new.write_text("two\n")
        new.rename(hosts)
        if not box.is_vm:  # who has the first file open can still write to it; qemubox looks for it by its name
            first.write(b"six\n")
            assert told() == "six\n"


def test_the_hosts_word_counts(vm: Box, hosts: Path) -> None:
    """What the container has written stays in it, until the host writes."""
    container = vm.start("sh", "-c", "echo mine >>/etc/hosts; sleep 1d", options=("--null-io", *_mounted(hosts, "rw")))

    def seen() -> str:
        command = ("tasks", "exec", "--exec-id", vm.new_id(), container, "cat", "/etc/hosts")
        return vm.containerd.ctr(*command, deadline_s=RUN_DEADLINE_S).checked().text

    eventually(lambda: seen() == "one\nmine", "the container writes", RUN_DEADLINE_S)
    assert hosts.read_text() == "one\n"
    hosts.write_text("two\n")
    eventually(lambda: seen() == "two", "the host's file is there", RUN_DEADLINE_S)
    vm.kill(container).checked()
    vm.wait_stopped(container)
    vm.delete_task(container).checked()
    vm.remove(container).checked()
