"""What goes into an exec and what comes out of it, at the edges: long argument lists, clients that come and go."""

import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from harness.box import Box
from harness.messages import assert_one_clear_line

_DEADLINE_S = 60.0
_KIB = 1 << 10


@contextmanager
def _container(box: Box) -> Iterator[str]:
    container = box.start("sleep", "1000")
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _exec(container: str, *command: str, options: tuple[str, ...] = ()) -> list[str]:
    return ["tasks", "exec", *options, "--exec-id", "e", container, *command]


@pytest.mark.parametrize(
    "arguments",
    [pytest.param(["a" * 127] * _KIB, id="many"), pytest.param(["a" * (127 * _KIB)], id="long")],
)
def test_an_argument_list_of_128_kib_arrives_whole(box: Box, arguments: list[str]) -> None:
    """One argument may have 128 KiB with its NUL, all of them far more (execve(2), MAX_ARG_STRLEN)."""
    script = 'echo $# $(printf %s "$@" | wc -c)'
    with _container(box) as container:
        command = _exec(container, "sh", "-c", script, "sh", *arguments)
        result = box.containerd.ctr(*command, deadline_s=_DEADLINE_S).checked()
        assert result.text == f"{len(arguments)} {sum(map(len, arguments))}"


def test_an_argument_list_that_no_message_can_hold_is_one_clear_error(vm: Box) -> None:
    with _container(vm) as container:
        # Below what a program's arguments may have in all (getconf ARG_MAX: 2 MiB of the stack), above it in JSON.
        arguments = ["\x01" * (100 * _KIB)] * 15
        result = vm.containerd.ctr(*_exec(container, "true", *arguments), deadline_s=_DEADLINE_S)
        assert_one_clear_line(result, "message|size|large|bytes")
        assert vm.containerd.ctr(*_exec(container, "echo", "again"), deadline_s=_DEADLINE_S).text == "again"


class _Fifo:
    """One of the FIFOs of a process, held at our end as a client holds it."""

    def __init__(self, path: str, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)

    def write(self, data: bytes) -> None:
        assert os.write(self._fd, data) == len(data)

    def read_until(self, words: bytes) -> bytes:
        end, seen = time.monotonic() + _DEADLINE_S, b""
        while words not in seen:
            readable, _, _ = select.select([self._fd], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"{words!r} does not come: {seen!r}"
            data = os.read(self._fd, 4096)
            assert data, f"the output ended before {words!r}: {seen!r}"
            seen += data
        return seen

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.every_containerd
def test_an_exec_outlives_its_clients_and_listens_to_the_next(box: Box) -> None:
    """`ctr` leaves, others take its place at the FIFOs. That a client goes is no end of the input nor of the output."""
    fifos = box.containerd.cell.directory / "tmp" / f"exec-fifos-{box.runtime}"
    fifos.mkdir()
    script = 'while read line; do echo "got $line"; [ "$line" != leave ] || exit 6; done; echo ended early'
    keyboard, hand = os.pipe()
    with box.events() as events, _container(box) as container, ExitStack() as ends:
        ends.callback(shutil.rmtree, fifos)
        ends.callback(os.close, hand)
        ends.callback(os.close, keyboard)
        options = ("-d", "--fifo-dir", str(fifos))
        command = _exec(container, "sh", "-c", script, options=options)
        with box.containerd.running(command, stdin=keyboard, stdout=subprocess.DEVNULL) as ctr:
            assert ctr.wait(_DEADLINE_S) == 0
        stdin, stdout = (str(next(fifos.rglob(f"*{name}"))) for name in ("stdin", "stdout"))
        for word in (b"first", b"second"):
            client = (_Fifo(stdout, os.O_RDONLY), _Fifo(stdin, os.O_WRONLY))
            client[1].write(word + b"\n")
            assert client[0].read_until(b"got " + word + b"\n").endswith(b"got " + word + b"\n")
            for end in client:
                end.close()
        with ExitStack() as last:
            writer = _Fifo(stdin, os.O_WRONLY)
            last.callback(writer.close)
            writer.write(b"leave\n")
            assert events.wait("/tasks/exit", container).fields["exit_status"] == 6


@pytest.mark.release
def test_one_after_the_other_for_ever(vm: Box) -> None:
    """Each has three streams, of which a machine with ports has 62 at once: those of one that has ended are free."""
    with _container(vm) as container:
        for number in range(30):
            said = vm.containerd.ctr(*_exec(container, "echo", str(number)), stdin=b"x", deadline_s=_DEADLINE_S)
            assert said.text == str(number), said.error
