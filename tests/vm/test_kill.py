"""`Kill` and `Wait`: every signal, in every state, to one or to all; and what those who wait are told."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from harness.box import RUNTIMES, Box
from harness.deadline import eventually
from harness.images import BUSYBOX
from harness.messages import assert_one_clear_line

_DEADLINE_S = 30.0
_WAITERS = 50
# Those that nobody can handle, two that the C library keeps for itself, and one that a shell gets from its children.
_NOT_TRAPPED = (signal.SIGKILL, signal.SIGSTOP, 32, 33, signal.SIGCHLD)
_EVERY = [number for number in range(1, 65) if number not in _NOT_TRAPPED]
# Writes down each signal that it gets.
_LOOP = "while :; do sleep 0.1; done"
_TRAPS = f'for n in {" ".join(map(str, _EVERY))}; do trap "echo $n >>/got" $n; done; >/got; {_LOOP}'


@contextmanager
def _created(box: Box) -> Iterator[str]:
    """A task that has not been started; whatever has become of it by the end of the block, it is removed."""
    container = box.new_id()
    box.containerd.ctr(
        "containers", "create", "--runtime", RUNTIMES[box.runtime], BUSYBOX, container, "sleep", "1000"
    ).checked()
    box.containerd.create_task(container).checked()
    yield container
    _end(box, container)


@contextmanager
def _running(box: Box, script: str) -> Iterator[str]:
    """One that runs until the block is over, if it does not end before."""
    container = box.start("sh", "-c", script)
    yield container
    _end(box, container)


def _end(box: Box, container: str) -> None:
    box.kill(container)
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()


def _read(box: Box, container: str, path: str) -> list[str]:
    """The lines of a file in the container; none if there is no such file."""
    return box.containerd.ctr("tasks", "exec", "--exec-id", "r", container, "cat", path).text.split()


def _ready(box: Box, container: str, path: str) -> None:
    """Return once the container has made that file."""
    arguments = ("tasks", "exec", "--exec-id", "r", container, "test", "-e", path)
    eventually(lambda: box.containerd.ctr(*arguments).code == 0, f"{path} is there", _DEADLINE_S)


@pytest.mark.timeout(180)
def test_every_signal_arrives(box: Box) -> None:
    with _running(box, _TRAPS) as container:
        _ready(box, container, "/got")
        box.containerd.signal(container, *_EVERY).checked()
        eventually(lambda: len(_read(box, container, "/got")) >= len(_EVERY), "all signals are there", 3 * _DEADLINE_S)
        assert sorted(map(int, _read(box, container, "/got"))) == _EVERY


def test_a_number_that_is_no_signal_is_refused_and_zero_is_none(box: Box) -> None:
    with _running(box, "sleep 1000") as container:
        box.containerd.signal(container, 0).checked()
        for number in (-1, -9, 65, 1000):
            assert box.containerd.signal(container, number).code == 1
        assert box.status(container) == "RUNNING"


def test_the_refused_number_is_named(vm: Box) -> None:
    with _running(vm, "sleep 1000") as container:
        for everyone in (False, True):
            assert_one_clear_line(vm.containerd.signal(container, 65, everyone=everyone), "no signal 65", "INVALID")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGKILL, 137), (signal.SIGTERM, 2), (signal.SIGHUP, 2), (signal.SIGQUIT, 2)]
)
@pytest.mark.parametrize("everyone", [False, True])
def test_a_created_container_ends(box: Box, number: int, status: int, everyone: bool) -> None:
    """With runc's status; its exit is told once, though it never started."""
    with box.events() as events, _created(box) as container:
        box.containerd.signal(container, number, everyone=everyone).checked()
        box.wait_stopped(container, deadline_s=_DEADLINE_S)
        assert events.wait("/tasks/exit", container).fields["exit_status"] == status
        assert events.topics(container) == ["/tasks/create", "/tasks/exit"]
        assert "already finished" in box.kill(container).error


def test_a_created_container_does_not_end_by_any_other_signal(box: Box) -> None:
    with _created(box) as container:
        box.containerd.signal(container, 0, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE, signal.SIGRTMAX).checked()
        assert box.status(container) == "CREATED"
        box.containerd.start_task(container).checked()
        assert box.status(container) == "RUNNING"


def test_what_has_ended_is_not_found(box: Box) -> None:
    with _running(box, "exit 5") as container:
        box.wait_stopped(container)
        for number in (0, signal.SIGTERM, signal.SIGKILL):
            refused = box.containerd.signal(container, number)
            assert "process already finished" in refused.error
            assert "NOT_FOUND" in refused.error
        box.containerd.signal(container, signal.SIGKILL, everyone=True).checked()  # all that there are
    assert "NOT_FOUND" in box.containerd.signal(container, signal.SIGKILL).error


@pytest.mark.release
@pytest.mark.parametrize("stage", ["created", "running"])
def test_fifty_wait_and_hear_the_same(box: Box, stage: str) -> None:
    with _created(box) as container:
        if stage == "running":
            box.containerd.start_task(container).checked()
        with box.containerd.waiting(container, _WAITERS) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == b"waiting\n"
            if stage == "created":
                box.containerd.start_task(container).checked()
            box.kill(container).checked()
            assert waiting.stdout.readline().split() == [b"137"] * _WAITERS
        with box.containerd.waiting(container, 2) as late:
            assert late.communicate(timeout=_DEADLINE_S)[0].split() == [b"waiting", b"137", b"137"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 137), (signal.SIGTERM, 143), (signal.SIGSEGV, 139)])
def test_the_status_of_a_killed_exec(box: Box, number: int, status: int) -> None:
    """Only that one ends."""
    with _running(box, "sleep 1000") as container:
        arguments = ["tasks", "exec", "--exec-id", "e", container, "sh", "-c", "echo ready; exec sleep 1000"]
        with box.containerd.running(arguments) as ctr:
            assert ctr.stdout is not None
            assert ctr.stdout.read(6) == b"ready\n"
            name = signal.Signals(number).name
            box.containerd.ctr("tasks", "kill", "-s", name, "--exec-id", "e", container).checked()
            assert ctr.wait(_DEADLINE_S) == status
        assert box.status(container) == "RUNNING"


def test_all_is_also_those_in_sessions_of_their_own(box: Box) -> None:
    """The first process and its children's children, whoever their parents and sessions are; the first one goes on."""
    child = f"trap 'echo \\$0 >>/got; exit' TERM; >/ready-\\$0; {_LOOP}"
    script = f"""
        trap 'echo first >>/got' TERM
        setsid sh -c "{child}" one &
        (setsid sh -c "{child}" two &)
        >/ready; {_LOOP}
    """
    with _running(box, script) as container:
        for path in ("/ready", "/ready-one", "/ready-two"):
            _ready(box, container, path)
        box.containerd.signal(container, signal.SIGTERM, everyone=True).checked()
        eventually(lambda: len(_read(box, container, "/got")) == 3, "all three have got it", _DEADLINE_S)
        assert sorted(_read(box, container, "/got")) == ["first", "one", "two"]
        box.containerd.signal(container, signal.SIGTERM).checked()
        eventually(lambda: len(_read(box, container, "/got")) == 4, "the first one has got it", _DEADLINE_S)
        assert _read(box, container, "/got")[3] == "first"


@pytest.mark.release
def test_the_stop_signal_of_an_image_reaches_it(box: Box) -> None:
    """Which one that is is the client's business: it sends what it finds. RTMIN is 34 where the number is made."""
    with _running(box, f"trap 'exit 41' USR2; trap 'exit 42' 37; >/ready; {_LOOP}") as container:
        _ready(box, container, "/ready")
        box.containerd.ctr("tasks", "kill", "-s", "RTMIN+3", container).checked()
        box.wait_stopped(container)
        assert "non-zero exit code 42" in box.delete_task(container).error


def test_sigkill_is_prompt(vm: Box) -> None:
    """Not a word from the process is waited for, nor a deadline."""
    with _running(vm, f"trap '' TERM; {_LOOP}") as container:
        vm.kill(container, "TERM").checked()
        began = time.monotonic()
        vm.kill(container).checked()
        vm.wait_stopped(container)
        assert time.monotonic() - began < 8
