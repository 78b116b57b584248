"""`delete` as containerd runs it: whatever has become of the shim, nothing is left, in time."""

import os
import signal
import subprocess
import sys
import time

import pytest

from api import task_pb2
from shim.claim import LOCK_NAME
from shim.journal import Journal
from tests.unit.shim.observe import Spawn, line_of, release, until, wait_for_words
from tests.unit.shim.program import COMMAND, Answer, Host

# containerd's limit (io.containerd.timeout.shim.cleanup).
_LIMIT_S = 5.0
# The binary on a host with as many processes as it may have; root is exempt from setrlimit(2)'s limit.
_NO_FORK = """
import errno, os, runpy

def fork():
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

os.fork = fork
runpy.run_module("shim.entry", run_name="__main__", alter_sys=True)
"""


def _check(answer: Answer) -> None:
    """Exactly a DeleteResponse on standard output, nothing on standard error."""
    assert (answer.status, answer.stderr) == (0, b"")
    response = task_pb2.DeleteResponse.FromString(answer.stdout)
    assert (response.pid, response.exit_status) == (0, 137)
    assert abs(response.exited_at.ToNanoseconds() - time.time_ns()) < 60e9
    assert response.SerializeToString(deterministic=True) == answer.stdout


def test_of_nothing(host: Host) -> None:
    shim = host.shim()
    for _ in range(2):
        _check(shim.delete())
    assert os.listdir(shim.bundle) == ["log"]
    assert not host.state.exists()


def test_after_a_shim_that_ended_in_good_order(host: Host) -> None:
    shim = host.shim()
    shim.start()
    shim.shutdown()
    _check(shim.delete())
    assert shim.left() == []  # the daemon's process too


def test_after_kill_9_of_the_shim(host: Host, spawn: Spawn) -> None:
    shim = host.shim()
    shim.start()
    helper = spawn("import signal; signal.pause()", host.unique)
    wait_for_words(helper.pid, host.unique)
    journal, tree = Journal(shim.directory), host.path / "tree"
    journal.record("path", path=str(tree))
    journal.record("process", marker=host.unique)
    (tree / "deep").mkdir(parents=True)
    shim.kill()
    began = time.monotonic()
    _check(shim.delete())
    assert time.monotonic() - began < _LIMIT_S
    assert shim.left() == []
    assert not tree.exists()
    assert helper.wait(10) == -9
    _check(shim.delete())


def test_on_a_host_that_has_no_room_for_a_process(host: Host, spawn: Spawn) -> None:
    """What it ends is what the host lacks."""
    shim = host.shim()
    shim.start()
    helper = spawn("import signal; signal.pause()", host.unique)
    wait_for_words(helper.pid, host.unique)
    Journal(shim.directory).record("process", marker=host.unique)
    shim.kill()
    words = shim.words("-bundle", str(shim.bundle), "delete")[len(COMMAND) :]
    answer = shim.run([sys.executable, "-I", "-c", _NO_FORK, *words], b"")
    assert answer.status == 0
    assert task_pb2.DeleteResponse.FromString(answer.stdout).exit_status == 137
    assert answer.stderr == b"nobody would go on if this process were killed: Resource temporarily unavailable\n"
    assert shim.left() == []
    assert helper.wait(10) == -9


def test_of_a_shim_that_hangs(host: Host) -> None:
    shim = host.shim()
    shim.start()
    shim.connect()
    os.kill(shim.pid, signal.SIGSTOP)
    began = time.monotonic()
    _check(shim.delete())
    assert time.monotonic() - began < _LIMIT_S
    assert shim.left() == []


def test_of_a_shim_that_lives_and_is_well(host: Host) -> None:
    """containerd runs `delete` when it cannot talk to the shim: then it is to end, whatever it thinks of itself."""
    shim = host.shim()
    shim.start()
    _check(shim.delete())
    assert shim.left() == []


def test_a_configuration_that_has_changed_since_is_no_hindrance(host: Host) -> None:
    shim = host.shim()
    shim.start()
    host.config.write_text("this is not TOML")
    shim.kill()
    _check(shim.delete())
    assert shim.left() == []


def test_by_hand_without_a_bundle(host: Host) -> None:
    shim = host.shim()
    shim.start()
    shim.kill()
    (shim.bundle / "qemubox").unlink()
    _check(shim.delete())
    assert shim.left() == []


def test_another_containers_shim_is_not_touched(host: Host) -> None:
    one, other = host.shim("c1"), host.shim("c2")
    one.start()
    other.start()
    one.kill()
    _check(one.delete())
    assert one.left() == []
    assert other.connect().shim_pid == other.pid


def test_what_cannot_be_removed_is_told_and_tried_again(host: Host) -> None:
    shim = host.shim()
    shim.start()
    shim.kill()
    source, point = host.path / "source", host.path / "tree" / "point"
    source.mkdir()
    point.mkdir(parents=True)
    (source / "precious").touch()
    Journal(shim.directory).record("path", path=str(point.parent))
    subprocess.run(["mount", "--bind", source, point], check=True)
    try:
        answer = shim.delete()
        text = f"c1: not everything could be removed: path {point.parent}: {point} is still mounted\n"
        assert answer == Answer(1, b"", text.encode())
        assert (source / "precious").exists()
    finally:
        subprocess.run(["umount", point], check=True)
    _check(shim.delete())
    assert shim.left() == []
    assert not point.parent.exists()


def test_a_pid_left_in_a_lock_that_nobody_holds_is_nobodys(host: Host, spawn: Spawn) -> None:
    shim, bystander = host.shim(), spawn("import signal; signal.pause()")
    shim.directory.mkdir(parents=True)
    (shim.directory / LOCK_NAME).write_text(str(bystander.pid))
    _check(shim.delete())
    assert bystander.poll() is None
    assert shim.left() == []


def test_a_lock_that_nobody_has_signed_is_told(host: Host, spawn: Spawn) -> None:
    shim = host.shim()
    shim.directory.mkdir(parents=True)
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); sys.stdin.read()"
    holder = spawn(program, str(shim.directory / LOCK_NAME))
    assert line_of(holder) == "1"
    began = time.monotonic()
    assert shim.delete() == Answer(1, b"", b"c1: not everything could be removed: shim 0 does not die\n")
    assert time.monotonic() - began < _LIMIT_S
    assert holder.poll() is None


def test_it_waits_for_the_last_instructions_of_the_shim(host: Host, spawn: Spawn) -> None:
    """The directory is gone, the process not quite."""
    shim = host.shim()
    last = spawn("import sys; sys.stdin.read()", "-id", shim.container_id, "start")
    wait_for_words(last.pid, "start")
    (shim.bundle / "shim.pid").write_text(str(last.pid))
    (shim.bundle / "qemubox").symlink_to(shim.directory)
    deleting = subprocess.Popen(
        shim.words("-bundle", str(shim.bundle), "delete"), cwd=shim.bundle, stdout=subprocess.PIPE, env=shim.environment
    )
    try:
        until(lambda: _polls(deleting.pid), "delete waits for the shim")
        release(last)
        stdout, _ = deleting.communicate(timeout=20)
        _check(Answer(deleting.returncode, stdout, b""))
        assert last.poll() is not None
    finally:
        deleting.kill()
        deleting.wait()


def _polls(pid: int) -> bool:
    """Whether the process is in poll(2), system call 7 of x86_64 (proc_pid_syscall(5))."""
    try:
        with open(f"/proc/{pid}/syscall") as file:
            return file.read().split()[0] == "7"
    except OSError:
        return False


@pytest.mark.parametrize("word", ["sleeping", "start"])
def test_it_does_not_wait_for_a_stranger_with_the_shims_number(host: Host, spawn: Spawn, word: str) -> None:
    shim = host.shim()
    stranger = spawn("import signal; signal.pause()", word)
    wait_for_words(stranger.pid, word)
    (shim.bundle / "shim.pid").write_text(str(stranger.pid))
    (shim.bundle / "qemubox").symlink_to(shim.directory)
    began = time.monotonic()
    _check(shim.delete())
    assert time.monotonic() - began < 1.9
    assert stranger.poll() is None


def test_many_at_once(host: Host) -> None:
    shim = host.shim()
    shim.start()
    shim.kill()
    words = [sys.executable, "-I", *shim.words("-bundle", str(shim.bundle), "delete")[2:]]
    running = [
        subprocess.Popen(words, cwd=shim.bundle, env=shim.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in running:
        stdout, stderr = child.communicate(timeout=30)
        _check(Answer(child.returncode, stdout, stderr))
    assert shim.left() == []
