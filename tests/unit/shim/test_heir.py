"""The process that finishes another's work: however that ends, and only if it has not finished."""

import os
import subprocess
import sys
from pathlib import Path

from shim.claim import LOCK_NAME, claim
from shim.delete import _go_on
from shim.heir import Heir
from tests.unit.shim.observe import same_fds, until

# Words of argv: a FIFO at which the work waits, and a file that tells that it was done.
_KILLED = """
import os, sys
from shim.heir import Heir

def work():
    open(sys.argv[1]).close()
    open(sys.argv[2], "x").close()

print(Heir(work).pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_it_does_the_work_of_one_that_was_killed_and_keeps_no_reader_waiting(tmp_path: Path) -> None:
    fifo, done = tmp_path / "fifo", tmp_path / "done"
    os.mkfifo(fifo)
    # `run` reads both streams to their ends, which come before the work does.
    killed = subprocess.run([sys.executable, "-c", _KILLED, fifo, done], check=False, capture_output=True, timeout=30)
    assert (killed.returncode, killed.stderr) == (-9, b"")
    assert not done.exists()
    fifo.open("w").close()
    until(lambda: not Path(f"/proc/{int(killed.stdout)}").exists(), "it has ended")
    assert done.exists()


def test_one_that_is_dismissed_does_nothing_and_is_gone(tmp_path: Path) -> None:
    done = tmp_path / "done"
    with same_fds():
        heir = Heir(done.touch)
        heir.dismiss()
    assert not Path(f"/proc/{heir.pid}").exists()
    assert not done.exists()


def test_one_that_was_killed_can_be_dismissed(tmp_path: Path) -> None:
    heir = Heir((tmp_path / "done").touch)
    os.kill(heir.pid, 9)
    heir.dismiss()
    assert not (tmp_path / "done").exists()


def test_what_the_next_shim_has_made_is_not_touched(tmp_path: Path) -> None:
    """`delete` may have been killed when it had done all."""
    directory = tmp_path / "vm"
    directory.mkdir()
    fd = claim(directory, deadline_s=0)
    try:
        (directory / LOCK_NAME).unlink()
        _go_on(str(directory), fd)
        (directory / LOCK_NAME).touch()
        _go_on(str(directory), fd)
    finally:
        os.close(fd)
    assert os.listdir(directory) == [LOCK_NAME]
