"""Output that goes to a logger, or to a file, as containerd's own shim does it."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, Box
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line

# Says in files of its directory what it was given, and what it reads.
_LOGGER = """#!/usr/bin/python3 -IS
import json, os, signal, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends with its streams, as containerd's and nerdctl's loggers do
directory = os.path.dirname(os.path.abspath(__file__))
fds = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)]
with open(directory + "/given", "w") as file:
    json.dump([sys.argv[1:], dict(os.environ), sorted(map(int, fds))], file)
READY
def copy(fd, name):
    with open(directory + "/" + name, "wb") as out:
        while data := os.read(fd, 65536):
            out.write(data)
    os.rename(directory + "/" + name, directory + "/" + name + ".whole")
readers = [threading.Thread(target=copy, args=each) for each in ((3, "stdout"), (4, "stderr"))]
for each in readers: each.start()
for each in readers: each.join()
"""


@pytest.fixture
def logs(box: Box) -> Iterator[Path]:
    """A directory with a logger in it, which the cell sees too."""
    directory = box.containerd.cell.directory / f"logs-{box.new_id()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def _logger(logs: Path, ready: str = "os.close(5)") -> Path:
    program = logs / "logger"
    program.write_text(_LOGGER.replace("READY", ready))
    program.chmod(0o755)
    return program


def _whole(logs: Path, name: str) -> bytes:
    """What the logger has read of a stream, once it has read its end."""
    path = logs / f"{name}.whole"
    eventually(path.exists, f"the logger has read {name} to its end", RUN_DEADLINE_S)
    return path.read_bytes()


def _delete(box: Box, container: str) -> None:
    box.delete_task(container).checked()
    box.remove(container).checked()


@pytest.mark.every_containerd
def test_a_logger_has_all_output_and_the_rest_of_the_contract(box: Box, logs: Path) -> None:
    program = _logger(logs)
    produce = "seq 100000; seq 5 >&2"
    container = box.start("sh", "-c", produce, options=("--log-uri", f"binary://{program}?key=value"))
    box.wait_stopped(container)
    _delete(box, container)
    assert _whole(logs, "stdout") == b"".join(b"%d\n" % number for number in range(1, 100001))
    assert _whole(logs, "stderr") == b"1\n2\n3\n4\n5\n"
    words, environment, fds = json.loads((logs / "given").read_text())
    assert words == ["key", "value"]
    environment.pop("LC_CTYPE", None)  # Python sets it in itself
    assert environment == {"CONTAINER_ID": container, "CONTAINER_NAMESPACE": "default"}
    assert fds[:6] == [0, 1, 2, 3, 4, 5]
    if box.is_vm:  # runc's shim has a go runtime's epoll descriptor closed on exec, too; ours must not leak any
        assert fds == [0, 1, 2, 3, 4, 5]


@pytest.mark.on("2")
def test_the_newer_kind_says_that_it_is_ready(box: Box, logs: Path) -> None:
    program = _logger(logs, 'os.write(5, b"!"); os.close(5)')
    container = box.start("echo", "hello", options=("--log-uri", f"binary-v2://{program}"))
    box.wait_stopped(container)
    _delete(box, container)
    assert _whole(logs, "stdout") == b"hello\n"


@pytest.mark.on("2")
def test_an_exec_s_logger(box: Box, logs: Path) -> None:
    container = box.start("sleep", "1000")
    program = _logger(logs)
    options = ("--exec-id", "e1", "--log-uri", f"binary://{program}")
    box.containerd.ctr("tasks", "exec", *options, container, "sh", "-c", "echo o; echo e >&2").checked()
    assert (_whole(logs, "stdout"), _whole(logs, "stderr")) == (b"o\n", b"e\n")
    assert json.loads((logs / "given").read_text())[1]["CONTAINER_ID"] == "e1"
    box.kill(container).checked()
    box.wait_stopped(container)
    _delete(box, container)


@pytest.mark.parametrize(
    ("ready", "words"),
    [
        ("sys.exit('out of paper')", "ended with exit status 1 before it was ready: out of paper"),
        ("os.abort()", "was killed by signal 6 before it was ready"),
    ],
)
def test_a_logger_that_dies_at_once_is_quoted(vm: Box, logs: Path, ready: str, words: str) -> None:
    program = _logger(logs, ready)
    options = ("-d", "--log-uri", f"binary://{program}")
    container = vm.new_id()
    result = vm.containerd.ctr(*vm.run_arguments(container, ("true",), options, BUSYBOX), deadline_s=RUN_DEADLINE_S)
    assert_one_clear_line(result, str(program), words)
    vm.remove(container)


@pytest.mark.keeps_image
def test_after_a_kill_of_the_shim_the_logger_has_all_it_was_sent_and_is_gone(vm: Box, logs: Path) -> None:
    program = _logger(logs)
    command = ("sh", "-c", "seq 1000; echo end; sleep 1000")
    container = vm.start(*command, options=("--log-uri", f"binary://{program}"))
    eventually((logs / "given").exists, "the logger runs", RUN_DEADLINE_S)
    with vm.events() as events:
        os.kill(vm.shim(container).pid, signal.SIGKILL)
        events.wait("/tasks/exit", container)
    assert b"".join(b"%d\n" % number for number in range(1, 1001)).startswith(_whole(logs, "stdout")[:3000])
    _whole(logs, "stderr")
    vm.delete_task(container)
    vm.remove(container)


def test_a_file_has_both_streams(box: Box, logs: Path) -> None:
    path = logs / "deeper" / "output"
    container = box.start("sh", "-c", "echo out; echo err >&2", options=("--log-uri", f"file://{path}"))
    box.wait_stopped(container)
    _delete(box, container)
    assert sorted(path.read_text().splitlines()) == ["err", "out"]
