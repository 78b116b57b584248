"""`ctr run -t`: the container's first process has a terminal of the client's size, and the keyboard rules it."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from api import task_pb2
from harness.box import Box
from harness.images import BUSYBOX
from harness.shim import Bundle, Connection, Record, ShimBinary
from harness.terminal import SCRIPT, Terminal, terminal
from ttrpc import ConnectionClosed

_DEADLINE_S = 40.0
_ROWS, _COLUMNS = 33, 101


@pytest.mark.every_containerd
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
    """`ctr` has the size that its terminal has when it gets SIGWINCH.

    It listens for SIGWINCH only some time after Start, so after the "ready": an earlier one is lost to it.
    """
    script = (
        'trap \'size=$(stty size); echo "size $size"; [ "$size" != "50 120" ] || exit 6\' WINCH; '
        "echo ready; while :; do sleep 0.1; done"
    )
    with _on_a_terminal(box, "sh", "-c", script) as (client, ctr):
        client.read_until("ready", _DEADLINE_S)
        client.resize(50, 120)
        client.read_until("size 50 120", _DEADLINE_S, again=lambda: os.kill(ctr.pid, signal.SIGWINCH))
        assert ctr.wait(_DEADLINE_S) == 6


def test_a_size_from_before_the_start_is_there_at_the_first_instruction(box: Box) -> None:
    """Straight to the shim: `ctr` sends none before the process runs. Nobody sends one afterwards."""
    record = Record(box.containerd, f"record-{box.new_id()}")
    bundle = Bundle(record, box.new_id(), ["stty", "size"], terminal=True)
    binary = ShimBinary(box.containerd, box.runtime, bundle)
    try:
        asyncio.run(_resize_and_run(box, record, bundle, binary.start()))
        with open(bundle.path / "stdout", "rb", buffering=0) as screen:
            assert screen.read(64) == b"12 34\r\n"
    finally:
        binary.delete()
        bundle.remove()
        record.remove()


async def _resize_and_run(box: Box, record: Record, bundle: Bundle, answer: bytes) -> None:
    """A container's life, whose terminal gets its size between Create and Start."""
    connection = await Connection.dial(box.containerd, answer)
    name = bundle.container_id
    stdout = bundle.fifos.new("stdout")
    create = task_pb2.CreateTaskRequest(
        id=name, bundle=str(bundle.path), rootfs=record.mounts, terminal=True, stdout=stdout
    )
    calls: list[tuple[str, Message, type[Message]]] = [
        ("Create", create, task_pb2.CreateTaskResponse),
        ("ResizePty", task_pb2.ResizePtyRequest(id=name, width=34, height=12), Empty),
        ("Start", task_pb2.StartRequest(id=name), task_pb2.StartResponse),
        ("Wait", task_pb2.WaitRequest(id=name), task_pb2.WaitResponse),
        ("Delete", task_pb2.DeleteRequest(id=name), task_pb2.DeleteResponse),
        ("Shutdown", task_pb2.ShutdownRequest(id=name), Empty),
    ]
    for method, request, reply in calls:
        with suppress(ConnectionClosed) if method == "Shutdown" else nullcontext():
            await connection.call(method, request, reply, _DEADLINE_S)
    await connection.close()
