"""Waiting for what happens to files, with the kernel's own inotify."""

import asyncio
import errno
from pathlib import Path

import pytest

from shim import inotify
from shim.errors import HostError
from shim.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_MODIFY, IN_MOVED_TO, Watch, appears
from tests.unit.shim.observe import same_fds

_DEADLINE_S = 20.0


async def test_a_file_that_is_written_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("a")
    with Watch() as watch:
        watch.add(path, IN_MODIFY | IN_CLOSE_WRITE)
        path.write_text("b")
        await asyncio.wait_for(watch.event(), _DEADLINE_S)
        again = asyncio.ensure_future(watch.event())
        await asyncio.sleep(0)
        assert not again.done()
        path.write_text("c")
        await asyncio.wait_for(again, _DEADLINE_S)


async def test_what_is_forgotten_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("a")
    with Watch() as watch:
        watch.add(path, IN_MODIFY)
        path.write_text("b")
        watch.forget()
        watch.forget()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watch.event(), 0)


async def test_a_watch_is_on_the_file_and_not_on_its_name(tmp_path: Path) -> None:
    path, other = tmp_path / "hosts", tmp_path / "new"
    path.write_text("a")
    other.write_text("b")
    with path.open("ab") as file, Watch() as watch:
        watch.add(path, IN_MODIFY)
        other.rename(path)
        path.write_text("c")
        waiting = asyncio.ensure_future(watch.event())
        await asyncio.sleep(0)
        assert not waiting.done()
        file.write(b"d")
        file.flush()
        await asyncio.wait_for(waiting, _DEADLINE_S)


def test_a_number_stands_for_one_file(tmp_path: Path) -> None:
    """File systems give the inode of a file that is gone to the next one."""
    path = tmp_path / "hosts"
    path.write_text("a")
    with Watch() as watch:
        number = watch.add(path, IN_MODIFY)
        assert watch.add(path, IN_MODIFY) == number
        path.unlink()
        path.write_text("b")
        other = watch.add(path, IN_MODIFY)
        assert other != number
        watch.remove(other)
        watch.remove(other)
        assert watch.add(path, IN_MODIFY) not in (number, other)


@pytest.mark.parametrize("by_rename", [False, True])
async def test_a_name_that_appears(tmp_path: Path, by_rename: bool) -> None:
    path = tmp_path / "socket"
    with Watch() as watch:
        watch.add(tmp_path, IN_CREATE | IN_MOVED_TO)
        (tmp_path / "other").touch()
        waiting = asyncio.ensure_future(appears(path, watch))
        await asyncio.sleep(0)
        (tmp_path / "other").rename(path) if by_rename else path.touch()
        await asyncio.wait_for(waiting, _DEADLINE_S)


async def test_one_that_is_there_is_not_waited_for(tmp_path: Path) -> None:
    with Watch() as watch:
        await appears(tmp_path, watch)


def test_what_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with Watch() as watch, pytest.raises(HostError, match=f"{tmp_path}/gone cannot be watched: No such file"):
        watch.add(tmp_path / "gone", IN_MODIFY)


def test_it_is_closed_once(tmp_path: Path) -> None:
    with same_fds(), Watch() as watch:
        watch.close()
        with pytest.raises(HostError, match="cannot be watched: Bad file descriptor"):
            watch.add(tmp_path, IN_CREATE)


def test_a_host_that_has_no_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMore:
        """A libc whose inotify_init1(2) fails."""

        def inotify_init1(self, flags: int) -> int:
            """EMFILE, as with fs.inotify.max_user_instances."""
            monkeypatch.setattr("ctypes.get_errno", lambda: errno.EMFILE)
            return -1

    monkeypatch.setattr(inotify, "_libc", NoMore())
    with pytest.raises(HostError, match=r"inotify: Too many open files \(raise the host's fs.inotify.max_user_inst"):
        Watch()
