"""Waiting for kills, on a file that stands in for memory.events: who waits for its changes is told by the test."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from vminitd import oom
from vminitd.errors import UnknownError
from vminitd.oom import more_kills


class Changes:
    """What the kernel does: wakes whoever waits for a change of the file."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "memory.events"
        self._told = asyncio.Event()
        self.waits = 0
        self.write(0, 0)

    def write(self, hits: int, kills: int) -> None:
        self._file.write_text(f"low 0\nhigh 0\nmax {hits}\noom 0\noom_kill {kills}\noom_group_kill 9\n")
        self._told.set()

    async def until(self, _descriptor: int, holds: Callable[[], bool]) -> None:
        self.waits += 1
        while not holds():
            self._told.clear()
            await self._told.wait()


@pytest.fixture
def changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changes:
    made = Changes(tmp_path)
    monkeypatch.setattr(oom, "changed_until", made.until)
    return made


async def test_those_before_are_told_at_once(changes: Changes, tmp_path: Path) -> None:
    changes.write(5, 2)
    assert await more_kills(str(tmp_path), 0) == 2
    assert changes.waits == 0


async def test_it_waits_for_one_more(changes: Changes, tmp_path: Path) -> None:
    changes.write(5, 2)
    waiting = asyncio.create_task(more_kills(str(tmp_path), 2))
    await asyncio.sleep(0.01)
    changes.write(6, 3)
    assert await asyncio.wait_for(waiting, 10) == 3


async def test_what_else_is_counted_is_passed_over_and_not_looked_at_each_time(
    changes: Changes, tmp_path: Path
) -> None:
    waiting = asyncio.create_task(more_kills(str(tmp_path), 0))
    for hits in range(1, 30):
        changes.write(hits, 0)
        await asyncio.sleep(0.001)
    assert changes.waits <= 2
    assert not waiting.done()
    changes.write(30, 1)
    assert await asyncio.wait_for(waiting, 10) == 1


async def test_without_a_cgroup_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with pytest.raises(UnknownError, match=r"cannot open .*/memory.events: No such file"):
        await more_kills(str(tmp_path), 0)
