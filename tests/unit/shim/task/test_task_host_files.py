"""Files that go into a container: as they are when they are read, and never more than one message holds."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shim.errors import HostError, MissingPartError, SpecError
from shim.inotify import Watch
from shim.log import Logger
from shim.spec import FILES_LIMIT, HostFile
from shim.task import host_files
from shim.task.host_files import HostFiles
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.world import World


@asynccontextmanager
async def _files(log: Logger, *paths: Path) -> AsyncIterator[HostFiles]:
    """Those at `paths`, named "0", "1" and so on. Nothing of them is open afterwards."""
    log.info("the log is open from now on")
    with same_fds():
        files = HostFiles("c", tuple(HostFile(str(number), path) for number, path in enumerate(paths)), log)
        yield files
        await files.close()
        await files.close()


async def test_content_and_attributes(tmp_path: Path, log: Logger) -> None:
    path = tmp_path / "hosts"
    path.write_text("127.0.0.1 localhost\n")
    path.chmod(0o640)
    async with _files(log, path) as files:
        (file,) = files.read()
        assert [file] == files.read()
    assert (file.name, file.content, file.mode) == ("0", b"127.0.0.1 localhost\n", 0o640)
    assert (file.uid, file.gid) == (path.stat().st_uid, path.stat().st_gid)


async def test_files_that_have_grown_are_refused(tmp_path: Path, log: Logger) -> None:
    """By a hook, since they were looked at."""
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(bytes(FILES_LIMIT - 1))
    paths[1].write_bytes(b"x")
    async with _files(log, *paths) as files:
        assert len(files.read()) == 2
        paths[1].write_bytes(b"xy")
        with pytest.raises(SpecError, match=f"{paths[1]}: the container's files have more than 1 MiB together"):
            files.read()


async def test_one_that_is_gone_is_named(tmp_path: Path, log: Logger) -> None:
    async with _files(log, tmp_path / "gone") as files:
        with pytest.raises(MissingPartError, match=f"cannot read {tmp_path}/gone for the container: No such file"):
            files.read()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/proc/cpuinfo", "it is another file by now: /proc shows what the host's kernel has"),
        ("/dev/zero", "it is no regular file any more"),
        ("/", "it is no regular file any more"),
    ],
)
async def test_what_was_put_in_its_place_is_not_read(tmp_path: Path, log: Logger, target: str, words: str) -> None:
    """By another container that has the directory as a volume, say."""
    path = tmp_path / "link"
    path.symlink_to(target)
    async with _files(log, path) as files:
        with pytest.raises(MissingPartError, match=f"cannot read {path} for the container: {words}"):
            files.read()


async def test_without_files_nothing_is_watched(log: Logger) -> None:
    world = World(log)
    async with _files(log) as files:
        with same_fds():
            assert files.read() == []
            files.begin(world.guest)
    await world.close()


@pytest.mark.parametrize("step", ["__init__", "add"])
async def test_what_cannot_be_watched_is_copied_all_the_same(
    tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A host has so many inotify instances, and watches, for one user."""

    def refuse(*_: object) -> None:
        raise HostError("no more of them")

    path = tmp_path / "hosts"
    path.write_text("a")
    world = World(log)
    watch = type("Refusing", (Watch,), {step: refuse, **({"_fd": -1} if step == "__init__" else {})})
    monkeypatch.setattr(host_files, "Watch", watch)
    async with _files(log, path) as files:
        assert [file.content for file in files.read()] == [b"a"]
        files.begin(world.guest)
    assert "no more of them" in (tmp_path / "log").read_text()
    await world.close()
