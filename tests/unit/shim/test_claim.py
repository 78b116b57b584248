"""One holder at a time, across processes, with a deadline."""

import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from shim.claim import LOCK_NAME, ClaimTimeout, claim, make_directory, sign
from tests.unit.shim.observe import Spawn, line_of, release, same_fds, until, wait_in_flock

# claim() has the alarm that pytest-timeout would otherwise use.
pytestmark = pytest.mark.timeout(60, method="thread")

# Holds the directory until its standard input ends.
_HOLDER = """
import sys
from shim.claim import claim
fd = claim(sys.argv[1], deadline_s=10)
print("held", flush=True)
sys.stdin.read()
"""
# Claims, forks, and leaves the lock to the fork.
_FORKING_HOLDER = """
import os, sys
from shim.claim import claim, sign
fd = claim(sys.argv[1], deadline_s=10)
pid = os.fork()
if pid:
    sign(fd, pid)
    print(pid, flush=True)
    os._exit(0)
sys.stdin.read()
"""
# Says how its claim ends.
_WAITER = """
import os, sys
from shim.claim import claim
try:
    fd = claim(sys.argv[1], deadline_s=20)
except Exception as error:
    print(type(error).__name__, flush=True)
else:
    print("same" if os.path.samestat(os.fstat(fd), os.stat(sys.argv[1] + "/lock")) else "another", flush=True)
"""


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_a_new_directory_lets_others_pass_and_see_nothing(tmp_path: Path, umask: int) -> None:
    """Also those above it: who can write to one of them can put other directories in its place."""
    before = os.umask(umask)
    try:
        make_directory(tmp_path / "qemubox/vm/key")
        make_directory(tmp_path / "qemubox/vm/key")
    finally:
        os.umask(before)
    made = [tmp_path / name for name in ("qemubox", "qemubox/vm", "qemubox/vm/key")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o711] * 3


def test_the_lock_is_signed_by_its_holder(tmp_path: Path) -> None:
    fd = claim(tmp_path, deadline_s=1)
    assert (tmp_path / LOCK_NAME).read_text() == str(os.getpid())
    sign(fd, 7)
    assert (tmp_path / LOCK_NAME).read_text() == "7"
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_full_file_system_locks_nobody_out(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "full", tmp_path], check=True)
    try:
        (tmp_path / "filler").write_bytes(bytes(4096))
        os.close(claim(tmp_path, deadline_s=1))
        assert (tmp_path / LOCK_NAME).read_bytes() == b""
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with same_fds(), pytest.raises(FileNotFoundError):
        claim(tmp_path / "gone", deadline_s=1)


@pytest.mark.parametrize("deadline_s", [0.2, 0.0, -1.0])
def test_the_deadline_names_the_holder(tmp_path: Path, spawn: Spawn, deadline_s: float) -> None:
    holder = spawn(_HOLDER, str(tmp_path))
    assert line_of(holder) == "held"
    before, began = signal.getsignal(signal.SIGALRM), time.monotonic()
    with same_fds(), pytest.raises(ClaimTimeout) as caught:
        claim(tmp_path, deadline_s=deadline_s)
    assert max(0, deadline_s) <= time.monotonic() - began < 10
    assert caught.value.holder == holder.pid
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_alarm_that_rings_too_early_rings_again(tmp_path: Path, spawn: Spawn) -> None:
    """With deadlines this short the first ring often comes before flock(2) has begun to wait."""
    holder = spawn(_HOLDER, str(tmp_path))
    assert line_of(holder) == "held"
    with same_fds():
        for microseconds in range(1, 200):
            with pytest.raises(ClaimTimeout):
                claim(tmp_path, deadline_s=microseconds / 1e6)


def test_a_waiter_gets_the_lock_when_its_holder_ends(tmp_path: Path, spawn: Spawn) -> None:
    holder, waiter = spawn(_HOLDER, str(tmp_path)), None
    assert line_of(holder) == "held"
    waiter = spawn(_WAITER, str(tmp_path))
    wait_in_flock(waiter.pid)
    holder.kill()
    assert line_of(waiter) == "same"


def test_a_fork_keeps_the_lock(tmp_path: Path, spawn: Spawn) -> None:
    parent = spawn(_FORKING_HOLDER, str(tmp_path))
    pid = int(line_of(parent))
    assert parent.wait(10) == 0
    with pytest.raises(ClaimTimeout) as caught:
        claim(tmp_path, deadline_s=0.05)
    assert caught.value.holder == pid
    release(parent)  # and with it the fork's standard input
    fd = claim(tmp_path, deadline_s=10)
    assert (tmp_path / LOCK_NAME).read_text() == str(os.getpid())
    os.close(fd)


def test_a_directory_removed_under_a_waiter(tmp_path: Path, spawn: Spawn) -> None:
    directory = tmp_path / "vm"
    directory.mkdir()
    fd = claim(directory, deadline_s=1)
    waiter = spawn(_WAITER, str(directory))
    wait_in_flock(waiter.pid)
    shutil.rmtree(directory)
    os.close(fd)
    assert line_of(waiter) == "FileNotFoundError"


def test_a_directory_made_anew_under_a_waiter(tmp_path: Path, spawn: Spawn) -> None:
    directory = tmp_path / "vm"
    directory.mkdir()
    old = claim(directory, deadline_s=1)
    waiter = spawn(_WAITER, str(directory))
    wait_in_flock(waiter.pid)
    shutil.rmtree(directory)
    directory.mkdir()
    new = claim(directory, deadline_s=1)
    os.close(old)
    # The lock that it now gets is of a removed file: it must wait for the new one.
    until(lambda: _opened(waiter.pid, directory / LOCK_NAME), "the waiter has opened the new lock")
    wait_in_flock(waiter.pid)
    os.close(new)
    assert line_of(waiter) == "same"


def test_an_unsigned_lock_has_no_known_holder(tmp_path: Path, spawn: Spawn) -> None:
    holder = spawn(_HOLDER, str(tmp_path))
    assert line_of(holder) == "held"
    for text in ("", "x", "-5", "1 2"):
        (tmp_path / LOCK_NAME).write_text(text)
        with pytest.raises(ClaimTimeout) as caught:
            claim(tmp_path, deadline_s=0)
        assert caught.value.holder == 0


def test_many_claim_at_once_and_all_get_it_in_turn(tmp_path: Path, spawn: Spawn) -> None:
    waiters = [spawn(_WAITER, str(tmp_path)) for _ in range(5)]
    assert [line_of(waiter) for waiter in waiters] == ["same"] * 5


def _opened(pid: int, path: Path) -> bool:
    return any(_is_file(f"/proc/{pid}/fd/{fd}", path) for fd in os.listdir(f"/proc/{pid}/fd") if fd > "2")


def _is_file(descriptor: str, path: Path) -> bool:
    try:
        return os.path.samefile(descriptor, path)
    except FileNotFoundError:  # closed while we looked
        return False
