"""Locks that end with their holder."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shim.rootfs import flock


async def test_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = await flock.exclusive(path, timeout_s=5)
    second = asyncio.create_task(flock.exclusive(path, timeout_s=5))
    await _until_waiting()
    assert not second.done()
    os.close(first)
    os.close(await second)


async def test_a_removed_lock_file_is_made_anew_by_those_who_waited(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    async with flock.maker(path, timeout_s=5):
        second = asyncio.create_task(flock.exclusive(path, timeout_s=5))
        await _until_waiting()
    fd = await second
    assert flock.is_at(fd, path)
    os.close(fd)


async def test_makers_take_turns_and_leave_no_lock_file(tmp_path: Path) -> None:
    inside: list[int] = []

    async def make(number: int) -> None:
        async with flock.maker(tmp_path / "lock", timeout_s=20):
            assert not inside
            inside.append(number)
            await asyncio.to_thread(os.sched_yield)
            inside.remove(number)

    await asyncio.gather(*map(make, range(20)))
    assert os.listdir(tmp_path) == []


async def test_waiting_has_an_end_and_leaves_nothing_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = await flock.exclusive(path, timeout_s=5)
    with pytest.raises(TimeoutError):
        await flock.exclusive(path, timeout_s=0.05)
    os.close(first)
    os.close(await flock.exclusive(path, timeout_s=5))  # the one who gave up holds nothing


async def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    waiting = asyncio.create_task(flock.exclusive(path, timeout_s=5))
    await _until_waiting()
    assert not waiting.done()
    holder.kill()
    os.close(await waiting)
    await holder.wait()


async def test_sharing_keeps_exclusive_out_and_a_duplicate_keeps_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    reader, other_reader, remover = (os.open(path, os.O_RDONLY) for _ in range(3))
    assert flock.try_shared(reader)
    assert flock.try_shared(other_reader)
    os.close(other_reader)
    duplicate = os.dup(reader)
    os.close(reader)
    assert not flock.try_exclusive(remover)
    os.close(duplicate)
    assert flock.try_exclusive(remover)
    os.close(remover)


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await flock.exclusive(tmp_path / "nowhere" / "file", timeout_s=5)


def test_a_missing_path_names_no_file(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    assert not flock.is_at(fd, tmp_path / "nothing")
    os.close(fd)


async def _until_waiting() -> None:
    """Until a thread of ours is inside flock(2): /proc says in which system call it is."""
    deadline = time.monotonic() + 5
    await asyncio.sleep(0)  # the task that is to wait runs up to there
    while not any(_system_call(task) == _FLOCK for task in Path("/proc/self/task").iterdir()):
        assert time.monotonic() < deadline
        os.sched_yield()


_FLOCK = "73"  # x86_64


def _system_call(task: Path) -> str:
    try:
        return (task / "syscall").read_text().split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def test_who_has_it_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "device"
    path.touch()
    probing, ours = (os.open(path, os.O_RDONLY) for _ in range(2))
    assert flock.try_shared(probing)
    assert not await flock.exclusive_soon(ours, 0.05)
    os.close(ours)
    ours = os.open(path, os.O_RDONLY)
    waiting = asyncio.create_task(flock.exclusive_soon(ours, 5))
    await _until_waiting()
    os.close(probing)
    assert await waiting
    other = os.open(path, os.O_RDONLY)
    assert not flock.try_shared(other)
    for fd in (ours, other):
        os.close(fd)
