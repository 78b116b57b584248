"""Children: how they are started, and that their ends reach whoever waits, with no one's lost or confused."""

import asyncio
import fcntl
import os
import signal
from pathlib import Path

import pytest

from vminitd.reaper import Reaper, exit_status
from vminitd.spawn import spawn


def shell(script: str, stdout: int = 1) -> int:
    return spawn(["/bin/sh", "-c", script], stdin=0, stdout=stdout, stderr=2)


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 42", 42), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
)
async def test_exit_codes_and_signals(reaper: Reaper, script: str, status: int) -> None:
    assert await reaper.expect(shell(script)) == status


async def test_many_at_once(reaper: Reaper) -> None:
    ends = [reaper.expect(shell(f"exit {number}")) for number in range(20)]
    assert await asyncio.gather(*ends) == list(range(20))


async def test_a_child_that_ends_before_it_is_expected_is_kept_while_adopting(reaper: Reaper) -> None:
    with reaper.adopting():
        early, witness = shell("exit 7"), shell("sleep 0.05")
        await reaper.expect(witness)
        reaper.reap()
        assert await asyncio.wait_for(reaper.expect(early), 10) == 7


async def test_nobody_s_ends_are_not_kept_for_a_later_process_of_that_pid(reaper: Reaper) -> None:
    stranger, witness = shell("exit 7"), shell("sleep 0.05")
    await reaper.expect(witness)
    reaper.reap()
    with pytest.raises(ProcessLookupError):
        os.kill(stranger, 0)  # it was reaped all the same
    late = reaper.expect(stranger)
    assert not late.done()
    with reaper.adopting():
        other, witness = shell("exit 8"), shell("sleep 0.05")
        await reaper.expect(witness)
        reaper.reap()
    assert not reaper.expect(other).done()  # adopted by nobody in time


async def test_whoever_gave_up_waiting_does_no_harm(reaper: Reaper) -> None:
    ended = reaper.expect(shell("exit 3"))
    ended.cancel()
    assert await reaper.expect(shell("sleep 0.05; exit 4")) == 4


def test_statuses_are_counted_as_a_shell_does() -> None:
    assert exit_status(0x2A00) == 42
    assert exit_status(signal.SIGKILL) == 137


async def test_a_program_starts_with_a_clean_slate(reaper: Reaper, tmp_path: Path) -> None:
    """No ignored signals of Python's, no blocked ones, no descriptors but three, its own session."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDONLY)
    leak = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, 50)
    os.close(null)
    report = tmp_path / "report"
    try:
        pid = shell(
            f"grep -E '^Sig(Blk|Ign)' /proc/self/status >{report}; ls /proc/$$/fd >>{report}; ps -o sid= $$ >>{report}"
        )
        assert await reaper.expect(pid) == 0
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.close(leak)
    words = report.read_text().split()
    assert (words[0], words[2]) == ("SigBlk:", "SigIgn:")
    assert int(words[1], 16) == 0
    assert int(words[3], 16) & 0x7FFF_FFFF == 0  # 32 and 33 are the C library's own
    assert {"0", "1", "2"} <= set(words[4:-1])
    assert str(leak) not in words[4:-1]
    assert int(words[-1]) == pid


async def test_standard_streams_may_be_swapped(reaper: Reaper) -> None:
    """Whatever numbers the descriptors have, none overwrites another before it is used."""
    reading, writing = os.pipe()
    pid = spawn(["/bin/sh", "-c", "echo out; echo err >&2"], stdin=0, stdout=2, stderr=writing)
    os.close(writing)
    assert await reaper.expect(pid) == 0
    assert os.read(reading, 100) == b"err\n"
    os.close(reading)


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["/nope/nope"], stdin=0, stdout=1, stderr=2)
