"""`ctr tasks exec`: further processes in a container that runs."""

import hashlib
import random
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psutil
import pytest

from harness.box import Box
from harness.containerd import Result
from harness.deadline import eventually
from harness.events import Events
from harness.messages import assert_one_clear_line
from harness.terminal import SCRIPT, terminal

MIB = 1 << 20
_AT_ONCE = 6
_DEADLINE_S = 60.0
_ROWS, _COLUMNS = 33, 101
# A line of `ctr tasks ps`: 17 exec_id:"e", or with containerd 1.6: 17 &ProcessDetails{ExecID:e,...}
_PS_LINE = re.compile(r"(?P<pid>\d+) .*(exec_id|ExecID): *\"?(?P<exec_id>\w+)")


@contextmanager
def _container(box: Box, *command: str) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before."""
    container = box.start(*(command or ("sleep", "1000")))
    yield container
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _arguments(container: str, command: tuple[str, ...], exec_id: str, options: tuple[str, ...] = ()) -> list[str]:
    return ["tasks", "exec", *options, "--exec-id", exec_id, container, *command]


def _exec(
    box: Box,
    container: str,
    *command: str,
    exec_id: str = "e",
    options: tuple[str, ...] = (),
    stdin: bytes = b"",
) -> Result:
    arguments = _arguments(container, command, exec_id, options)
    return box.containerd.ctr(*arguments, stdin=stdin, deadline_s=_DEADLINE_S)


def _pids(box: Box, container: str) -> dict[str, int]:
    """The pids that have an exec's id, by that id: `ctr tasks ps`."""
    lines = box.containerd.ctr("tasks", "ps", container).checked().text.splitlines()[1:]
    return {found["exec_id"]: int(found["pid"]) for line in lines if (found := _PS_LINE.match(line))}


def _exits(events: Events, container: str) -> list[tuple[object, object]]:
    """Whose exits were told, in order, and with which status."""
    found = [event.fields for event in events.of(container) if event.topic == "/tasks/exit"]
    return [(fields["id"], fields.get("exit_status", 0)) for fields in found]


def test_it_runs_beside_the_first_process(box: Box) -> None:
    with _container(box) as container:
        script = "cat /proc/1/cmdline; echo; pwd; echo to stderr >&2; exit 7"
        result = _exec(box, container, "sh", "-c", script, options=("--cwd", "/etc"))
        assert result.stdout == b"sleep\x001000\x00\n/etc\n"
        assert "to stderr" in result.error
        assert result.code == 7
        assert box.status(container) == "RUNNING"
        assert _exec(box, container, "id", "-u").text == "0"  # the id is free again
        assert _exec(box, container, "id", "-u", options=("--user", "1000")).text == "1000"


@pytest.mark.every_containerd
def test_the_events_of_an_exec(box: Box) -> None:
    with box.events() as events, _container(box) as container:
        _exec(box, container, "sh", "-c", "exit 9")
        events.wait("/tasks/exit", container)
        told = [event for event in events.of(container) if event.topic not in ("/tasks/create", "/tasks/start")]
        assert [event.topic for event in told] == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]
        added, started, end = (event.fields for event in told)
        assert added["exec_id"] == started["exec_id"] == end["id"] == "e"
        assert started["pid"] == end["pid"] != box.task_pid(container)
        assert end["exit_status"] == 9


def test_one_million_bytes_through_and_eight_mib_out_at_once(box: Box) -> None:
    data = random.Random(22).randbytes(MIB)
    with _container(box) as container:
        assert _exec(box, container, "cat", stdin=data).stdout == data
        out = _exec(box, container, "head", "-c", str(8 * MIB), "/dev/zero").stdout
        assert (len(out), hashlib.sha256(out).digest()) == (8 * MIB, hashlib.sha256(bytes(8 * MIB)).digest())


def test_a_terminal_has_the_client_s_size_and_takes_its_keys(box: Box) -> None:
    with _container(box) as container, terminal(_ROWS, _COLUMNS) as client:
        arguments = _arguments(container, ("sh", "-c", SCRIPT), "t", ("-t",))
        with box.containerd.running(arguments, stdin=client.theirs, stdout=client.theirs) as ctr:
            assert "/dev/" in client.read_until("ready", _DEADLINE_S)
            client.type(b"a line\n")
            assert f"{_ROWS} {_COLUMNS}" in client.read_until("got a line", _DEADLINE_S)
            assert ctr.wait(_DEADLINE_S) == 3


@pytest.mark.release
def test_null_input_and_output_into_a_file(box: Box) -> None:
    """Detached, and without any FIFO: nothing is read, what is written is appended to the file."""
    log = box.containerd.cell.directory / f"exec-{box.runtime}.log"
    with box.events() as events, _container(box) as container:
        _exec(box, container, "sh", "-c", "wc -c; exit 4", options=("-d", "--log-uri", f"file://{log}")).checked()
        assert events.wait("/tasks/exit", container).fields["exit_status"] == 4
    assert log.read_text() == "0\n"


@pytest.mark.every_containerd
@pytest.mark.parametrize("program", ["no-such-program", "/etc/passwd"])
def test_a_program_that_cannot_be_executed_fails_at_start(box: Box, program: str) -> None:
    with box.events() as events, _container(box) as container:
        result = _exec(box, container, program)
        assert program in result.error
        assert result.code not in (0, 127)
        assert _exec(box, container, "echo", "again").text == "again"  # under the same id
        events.wait("/tasks/exit", container)
        assert events.topics(container).count("/tasks/exec-started") == 1
        assert _exits(events, container) == [("e", 0)]


def test_a_missing_program_s_line_is_clear(vm: Box) -> None:
    with _container(vm) as container:
        assert_one_clear_line(_exec(vm, container, "no-such-program"), "no-such-program", "not found|no such file")


def test_it_needs_a_container_that_runs(box: Box) -> None:
    with _container(box, "sh", "-c", "exit 0") as container:
        box.wait_stopped(container)
        assert _exec(box, container, "true").code != 0


@pytest.mark.every_containerd
def test_kill_and_pids(box: Box) -> None:
    with box.events() as events, _container(box) as container:
        with box.containerd.running(_arguments(container, ("sleep", "1000"), "victim")) as ctr:
            pid = eventually(lambda: _pids(box, container).get("victim"), "tasks ps shows the exec", _DEADLINE_S)
            assert pid != box.task_pid(container)
            assert any(process.pid == pid for process in box.containerd.cell.processes())
            box.containerd.ctr("tasks", "kill", "-s", "SIGKILL", "--exec-id", "victim", container).checked()
            assert ctr.wait(_DEADLINE_S) == 137
        assert _exits(events, container) == [("victim", 137)]
        assert _pids(box, container) == {}
        assert not psutil.pid_exists(pid)
        assert box.status(container) == "RUNNING"


@pytest.mark.release
def test_several_at_once(box: Box) -> None:
    def one(number: int) -> tuple[str, int]:
        result = _exec(box, container, "sh", "-c", f"echo {number}; exit {number}", exec_id=f"e{number}")
        return result.text, result.code

    with _container(box) as container, ThreadPoolExecutor(_AT_ONCE) as pool:
        assert list(pool.map(one, range(_AT_ONCE))) == [(str(number), number) for number in range(_AT_ONCE)]


def _await_ready(process: "subprocess.Popen[bytes]") -> None:
    """Return once an exec of `sh -c "echo ready; …"` is under way."""
    assert process.stdout is not None
    assert process.stdout.read(6) == b"ready\n"


def test_the_end_of_the_first_process_ends_the_others_before_it(box: Box) -> None:
    with box.events() as events, _container(box) as container:
        command = ("sh", "-c", "echo ready; sleep 1000")
        with box.containerd.running(_arguments(container, command, "e")) as ctr:
            _await_ready(ctr)
            box.kill(container).checked()
            assert ctr.wait(_DEADLINE_S) == 137
        box.wait_stopped(container)
        eventually(lambda: len(_exits(events, container)) == 2, "both exits are told", _DEADLINE_S)
        assert _exits(events, container) == [("e", 137), (container, 137)]


@pytest.mark.keeps_image
def test_the_loss_of_the_machine_ends_them_once_each(vm: Box) -> None:
    with vm.events() as events, _container(vm) as container:
        command = ("sh", "-c", "echo ready; sleep 1000")
        with vm.containerd.running(_arguments(container, command, "e")) as ctr:
            _await_ready(ctr)
            vm.processes("qemu-system-x86_64")[0].kill()
            assert ctr.wait(_DEADLINE_S) == 137
        vm.wait_stopped(container)
        eventually(lambda: len(_exits(events, container)) == 2, "both exits are told", _DEADLINE_S)
        assert _exits(events, container) == [("e", 137), (container, 137)]


@pytest.mark.every_containerd
def test_a_restarted_containerd_finds_it(box: Box) -> None:
    with _container(box) as container:
        options = ("-d", "--log-uri", "file:///dev/null")
        _exec(box, container, "sleep", "1000", exec_id="stays", options=options).checked()
        box.containerd.stop()
        box.containerd.start()
        assert "stays" in _pids(box, container)
        assert _exec(box, container, "echo", "more").text == "more"
