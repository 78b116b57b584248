"""containerd restarts, is killed, or becomes another version, while a container runs: the container does not notice."""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import Box
from harness.cell import Cell
from harness.containerd import Containerd
from harness.deadline import eventually
from harness.flavours import flavour
from harness.images import BUSYBOX
from harness.qemubox import Qemubox

_DEADLINE_S = 60.0
# Says what it hears, and ends with what it is told to.
_ECHO = 'while read line; do case $line in end) exit 23 ;; *) echo "got $line" ;; esac; done; exit 1'


class _Client:
    """Whoever holds the other ends of a container's FIFOs, as containerd's clients do."""

    def __init__(self, fifos: Path) -> None:
        self._stdin = os.open(next(fifos.rglob("*stdin")), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stdout = os.open(next(fifos.rglob("*stdout")), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def say(self, line: str) -> None:
        assert os.write(self._stdin, f"{line}\n".encode()) == len(line) + 1

    def hears(self, line: str) -> None:
        """Say a line, and fail unless the container says that it got it."""
        self.say(line)
        end, seen = time.monotonic() + _DEADLINE_S, b""
        while f"got {line}\n".encode() not in seen:
            readable, _, _ = select.select([self._stdout], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"{line!r} is not heard: {seen!r}"
            seen += os.read(self._stdout, 4096)

    def close(self) -> None:
        os.close(self._stdin)
        os.close(self._stdout)


@contextlib.contextmanager
def _talking(box: Box) -> Iterator[tuple[str, _Client]]:
    """A container that runs, and somebody who talks to it."""
    container = box.new_id()
    fifos = box.containerd.cell.directory / "tmp" / f"fifos-{container}"
    fifos.mkdir()
    keyboard, hand = os.pipe()  # `ctr` closes the input when its own ends
    options = ["-d", "--fifo-dir", str(fifos)]
    arguments = box.run_arguments(container, ["sh", "-c", _ECHO], options, BUSYBOX)
    with box.containerd.running(arguments, stdin=keyboard, stdout=subprocess.DEVNULL) as ctr:
        assert ctr.wait(_DEADLINE_S) == 0
    client = _Client(fifos)
    try:
        client.hears("hello")
        yield container, client
    finally:
        client.close()
        os.close(keyboard)
        os.close(hand)
        shutil.rmtree(fifos)


def _exec(box: Box, container: str, *command: str) -> str:
    arguments = ("tasks", "exec", "--exec-id", "e", container, *command)
    return box.containerd.ctr(*arguments, deadline_s=_DEADLINE_S).checked().text


def _ends_with(box: Box, container: str, status: int) -> None:
    box.wait_stopped(container)
    assert f"non-zero exit code {status}" in box.delete_task(container).error
    box.remove(container).checked()


@pytest.mark.every_containerd
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_talk_exec_wait_and_exit_go_on(box: Box, number: signal.Signals) -> None:
    with _talking(box) as (container, client):
        pid = box.task_pid(container)
        box.containerd.stop(number)
        client.hears("nobody else is there")
        box.containerd.start()
        assert (box.status(container), box.task_pid(container)) == ("RUNNING", pid)
        client.hears("somebody is back")
        assert _exec(box, container, "echo", "more") == "more"
        with box.events() as events:
            client.say("end")
            assert events.wait("/tasks/exit", container).fields["exit_status"] == 23
            assert events.topics(container) == ["/tasks/exit"]
        _ends_with(box, container, 23)


def test_attach_goes_on(box: Box) -> None:
    """A new `ctr` finds the streams by what State says of them."""
    with _talking(box) as (container, _):
        box.containerd.stop()
        box.containerd.start()
        with box.containerd.running(["tasks", "attach", container], stdin=subprocess.PIPE) as ctr:
            assert ctr.stdin is not None
            assert ctr.stdout is not None
            ctr.stdin.write(b"attached\n")
            assert ctr.stdout.readline() == b"got attached\n"
            ctr.stdin.write(b"end\n")
            assert ctr.wait(_DEADLINE_S) == 23
        box.delete_task(container)
        box.remove(container).checked()


@pytest.mark.every_containerd
def test_an_end_while_containerd_is_away_is_told_when_it_is_back(box: Box) -> None:
    with _talking(box) as (container, client):
        pid = box.task_pid(container)
        box.containerd.stop()
        client.say("end")
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the container has ended", _DEADLINE_S)
        box.containerd.start()
        assert box.status(container) == "STOPPED"
        _ends_with(box, container, 23)


@pytest.fixture
def old(archives: Path) -> Iterator[Containerd]:
    """containerd 1.6 in a cell of its own, with the busybox image."""
    directory = Path(tempfile.mkdtemp(prefix="qemubox-test-", dir="/var/tmp"))
    directory.chmod(0o711)
    try:
        with Cell(directory) as cell:
            running = Containerd(flavour("1.6"), cell, Qemubox(directory), archives)
            running.start()
            running.import_image(BUSYBOX)
            running.qemubox.install()
            yield running
    finally:
        shutil.rmtree(directory)


def test_another_containerd_finds_the_containers_of_the_old_one(old: Containerd, runtime: str) -> None:
    """1.6 has been told a plain address and speaks version 2 of the API; the new one takes over both."""
    box = Box(old, runtime)
    with _talking(box) as (container, client):
        pid = box.task_pid(container)
        old.stop()
        new = old.upgraded(flavour("2"))
        new.start()
        box = Box(new, runtime)
        assert (box.status(container), box.task_pid(container)) == ("RUNNING", pid)
        client.hears("the new one is there")
        assert _exec(box, container, "echo", "more") == "more"
        with box.events() as events:
            client.say("end")
            assert events.wait("/tasks/exit", container).fields["exit_status"] == 23
        _ends_with(box, container, 23)
        assert box.run("echo", "again", container=container).text == "again"
        assert box.processes("-id") == []
        assert [*new.cell.path("/run/qemubox/vm").glob("*")] == []
