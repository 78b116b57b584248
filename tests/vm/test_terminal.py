"""`ctr run -t`: the container's first process has a terminal of the client's size, and the keyboard rules it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from harness.box import Box
from harness.images import BUSYBOX
from harness.terminal import SCRIPT, Terminal, terminal

_DEADLINE_S = 40.0
_ROWS, _COLUMNS = 33, 101


def test_a_terminal_has_the_client_s_size_and_takes_its_keys(box: Box) -> None:
    container = box.new_id()
    arguments = box.run_arguments(container, ["sh", "-c", SCRIPT], ["--rm", "-t"], BUSYBOX)
    with (
        terminal(_ROWS, _COLUMNS) as client,
        box.containerd.running(arguments, stdin=client.theirs, stdout=client.theirs) as ctr,
    ):
        seen = client.read_until("ready", _DEADLINE_S)
        assert "/dev/" in seen
        client.type(b"a line\n")
        seen = client.read_until("got a line", _DEADLINE_S)
        assert f"{_ROWS} {_COLUMNS}" in seen
        assert ctr.wait(_DEADLINE_S) == 3


@contextmanager
def _on_a_terminal(box: Box, *command: str) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """`ctr run --rm -t` of a command, on a terminal that the caller holds."""
    arguments = box.run_arguments(box.new_id(), command, ["--rm", "-t"], BUSYBOX)
    with (
        terminal(_ROWS, _COLUMNS) as client,
        box.containerd.running(arguments, stdin=client.theirs, stdout=client.theirs) as ctr,
    ):
        yield client, ctr


def test_control_c_interrupts(box: Box) -> None:
    script = 'trap "echo interrupted; exit 5" INT; echo ready; while :; do sleep 0.1; done'
    with _on_a_terminal(box, "sh", "-c", script) as (client, ctr):
        client.read_until("ready", _DEADLINE_S)
        client.type(b"\x03")
        client.read_until("interrupted", _DEADLINE_S)
        assert ctr.wait(_DEADLINE_S) == 5


def test_job_control(box: Box) -> None:
    """A shell stops, continues and interrupts the job in its foreground, which is a process group of its own."""
    with _on_a_terminal(box, "sh", "-i") as (client, ctr):
        client.read_until("# ", _DEADLINE_S)
        # What is typed is shown as well; only what is said has these words in one piece.
        client.type(b"sh -c 'echo is un\"\"der way; exec sleep 1000'\n")
        client.read_until("is under way", _DEADLINE_S)
        client.type(b"\x1a")
        client.read_until("Stopped", _DEADLINE_S)
        client.type(b"fg\n")
        client.read_until("exec sleep 1000", _DEADLINE_S)  # which `fg` names
        client.type(b"\x03")
        client.type(b'echo en""ded with $?\n')
        client.read_until("ended with 130", _DEADLINE_S)
        client.type(b"exit 4\n")
        assert ctr.wait(_DEADLINE_S) == 4


def test_a_new_size_is_told_by_sigwinch(box: Box) -> None:
    """`ctr` has the size that its terminal has when it gets SIGWINCH."""
    script = (
        'trap \'size=$(stty size); echo "size $size"; [ "$size" != "50 120" ] || exit 6\' WINCH; '
        "echo ready; while :; do sleep 0.1; done"
    )
    with _on_a_terminal(box, "sh", "-c", script) as (client, ctr):
        client.read_until("ready", _DEADLINE_S)
        client.resize(50, 120)
        os.kill(ctr.pid, signal.SIGWINCH)
        client.read_until("size 50 120", _DEADLINE_S)
        assert ctr.wait(_DEADLINE_S) == 6
