"""Start, which vminitd does without crun where it finds what crun 1.21 leaves, and by crun where it does not."""

import os
from pathlib import Path

import pytest

from vminitd.crun import Crun
from vminitd.errors import CrunError
from vminitd.reaper import Reaper

# Says what it was called for, and refuses.
FAKE_CRUN = """#!/bin/sh
echo "$@" >>"$0.calls"
for word; do
  case $word in --log=file:*) log=${word#--log=file:} ;; esac
done
echo "container is not running" >"$log"
exit 1
"""


@pytest.fixture
async def crun(tmp_path: Path, reaper: Reaper) -> Crun:
    program = tmp_path / "crun"
    program.write_text(FAKE_CRUN)
    program.chmod(0o755)
    return Crun(reaper, str(tmp_path / "state"), str(program))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Where crun has it, in the container's directory below --root; it is not there yet."""
    path = tmp_path / "state/state/c/exec.fifo"
    path.parent.mkdir(parents=True)
    return path


async def test_start_writes_the_byte_that_the_process_waits_for(tmp_path: Path, crun: Crun, fifo: Path) -> None:
    os.mkfifo(fifo)
    waiting = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    await crun.start("c")
    assert os.read(waiting, 2) == b"\0"
    assert not fifo.exists()
    assert not (tmp_path / "crun.calls").exists()
    os.close(waiting)


@pytest.mark.parametrize("there", ["nothing", "a file", "a FIFO that nobody reads"])
async def test_otherwise_crun_is_called_and_says_why_not(tmp_path: Path, crun: Crun, fifo: Path, there: str) -> None:
    if there == "a file":
        fifo.write_bytes(b"kept")
    elif there != "nothing":
        os.mkfifo(fifo)
    with pytest.raises(CrunError, match="container is not running"):
        await crun.start("c")
    assert (tmp_path / "crun.calls").read_text().endswith(" start c\n")
    assert fifo.exists() is (there != "nothing")
    assert there != "a file" or fifo.read_bytes() == b"kept"
