"""Steps as processes: all that ends them ends what they have started, and says which they were."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lanes import run
from tests.lanes.plan import Step
from tests.lanes.run import Lanes
from tests.unit.shim.observe import until


async def _run(tmp_path: Path, steps: Sequence[Step], deadline_s: float = 60) -> int:
    return await Lanes(steps, 2, tmp_path / "logs", tmp_path).run(deadline_s)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.removeprefix("lanes: ") for line in capsys.readouterr().out.splitlines()]


async def test_what_a_lane_says_is_shown_whole_and_what_is_built_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Step("kernel", "echo compiling; touch built"),
        Step("unit", "test -e built && echo one; sleep 0.3; echo two >&2", 0, after=("kernel",)),
        Step("check", "echo fine"),
    ]
    assert await _run(tmp_path, steps) == 0
    lines = _lines(capsys)
    assert lines[lines.index("one") + 1] == "two"
    assert "compiling" not in lines
    assert lines[-1].endswith("all passed")
    assert (tmp_path / "logs/kernel.log").read_text() == "compiling\n"
    assert [line.split()[:2] for line in lines[-3:-1]] == [["check", "passed"], ["unit", "passed"]]


async def test_a_failure_is_named_last_and_stops_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [
        Step("kernel", "echo no compiler; exit 3"),
        Step("vm", "touch began", after=("kernel",)),
        Step("unit", "echo 'FAILED a test'; exit 1"),
        Step("check", "sleep 0.2; touch checked"),
    ]
    assert await _run(tmp_path, steps) == 1
    lines = _lines(capsys)
    assert "no compiler" in lines
    _, _, failed = lines[-1].partition(": failed: ")
    assert sorted(failed.split(", ")) == ["kernel", "unit", "vm"]
    assert "vm: not run, as kernel failed" in lines
    assert "  FAILED a test" in lines
    assert (tmp_path / "checked").exists()
    assert not (tmp_path / "began").exists()


def test_in_the_background_tests_hear_what_they_are_told(tmp_path: Path) -> None:
    """A shell's `&` ignores SIGINT and SIGQUIT for all that comes of it; some tests send them, or look."""
    program = (
        "import asyncio, sys; from pathlib import Path;"
        "from tests.lanes.plan import Step; from tests.lanes.run import Lanes;"
        "step = Step('unit', 'grep SigIgn /proc/self/status >ignored');"
        "sys.exit(asyncio.run(Lanes([step], 2, Path('logs'), Path.cwd()).run(30)))"
    )
    words = ["env", "--ignore-signal=HUP,INT,QUIT", sys.executable, "-c", program]
    done = subprocess.run(words, check=False, cwd=tmp_path, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ignored = int((tmp_path / "ignored").read_text().split()[1], 16)
    assert ignored & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1)) == 0


async def test_a_deadline_ends_the_step_with_its_children(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("vm", "sleep 1000 & echo $! >child; echo begun; wait", deadline_s=0.5), Step("check", "true")]
    assert await _run(tmp_path, steps) == 1
    lines = _lines(capsys)
    assert "begun" in lines
    assert "vm: ended after 0:00, its deadline" in lines
    assert lines[-1].endswith("failed: vm")
    _assert_ended(tmp_path / "child")


async def test_the_deadline_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("vm", "sleep 1000 & echo $! >child; wait", 0), Step("kvm", "true", 0)]
    assert await _run(tmp_path, steps, deadline_s=0.5) == 130
    lines = _lines(capsys)
    assert lines[-1] == "stopped after 0:00, the deadline of all"
    assert "kvm: not run: stopped after 0:00, the deadline of all" in lines
    _assert_ended(tmp_path / "child")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_interrupted_it_ends_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what does not listen to SIGINT and SIGTERM."""
    monkeypatch.setattr(run, "_TIDY_S", 0.2)
    steps = [Step("vm", "trap '' INT TERM; sleep 1000 & echo $! >child; wait"), Step("unit", "sleep 1000")]
    running = asyncio.create_task(_run(tmp_path, steps))
    child = tmp_path / "child"
    await asyncio.to_thread(until, lambda: child.exists() and child.read_text() != "", "it has a child")
    os.kill(os.getpid(), number)
    assert await running == 130
    assert _lines(capsys)[-1] == f"stopped by {number.name}"
    _assert_ended(child)


def _assert_ended(file: Path) -> None:
    """The process whose number is in it is not there, or a zombie that init will take."""
    stat = Path(f"/proc/{int(file.read_text())}/stat")
    until(lambda: not stat.exists() or stat.read_text().rpartition(") ")[2][0] == "Z", "it has ended")
