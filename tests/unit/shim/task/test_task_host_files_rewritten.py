"""Files of the host that are rewritten while a container has copies of them: the guest is told, and never harmed.

The files and inotify are the kernel's; the guest is a stand-in behind a real connection. That nothing is sent is seen
by what is sent next.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api import guest_pb2
from shim import deadlines
from shim.log import Logger
from shim.spec import FILES_LIMIT, HostFile
from shim.task import host_files
from shim.task.host_files import HostFiles
from shim.vm.states import Cause
from shim.vm.states import Exit as MachineExit
from tests.unit.shim.observe import same_fds
from tests.unit.shim.task.world import World, turns
from ttrpc import Code, StatusError

_DEADLINE_S = 20.0


class Followed:
    """Two files, "hosts" and "resolv", which a container has and which are followed."""

    def __init__(self, directory: Path, log: Logger) -> None:
        self.world = World(log)
        self.hosts, self.resolv = directory / "hosts", directory / "resolv.conf"
        self.hosts.write_text("h")
        self.resolv.write_text("r")
        self.files = HostFiles("c", (HostFile("hosts", self.hosts), HostFile("resolv", self.resolv)), log)
        self.files.read()

    def begin(self) -> None:
        """Follow them."""
        self.files.begin(self.world.guest)

    async def request(self) -> guest_pb2.RewriteRequest:
        """The next Rewrite."""
        return await asyncio.wait_for(self.world.vminitd.rewrites.get(), _DEADLINE_S)

    async def told(self) -> dict[str, bytes]:
        """What the next Rewrite brings, by name."""
        request = await self.request()
        assert request.container_id == "c"
        return {file.name: file.content for file in request.files}

    async def close(self) -> None:
        """Let go of all."""
        await asyncio.wait_for(self.files.close(), _DEADLINE_S)
        await self.world.close()


@pytest.fixture
async def followed(tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Followed]:
    for name in ("_SETTLE_S", "_PAUSE_S"):
        monkeypatch.setattr(host_files, name, 0.0)
    followed = Followed(tmp_path, log)
    yield followed
    await followed.close()


async def _logged(tmp_path: Path, words: str) -> None:
    async with asyncio.timeout(_DEADLINE_S):
        while words not in (tmp_path / "log").read_text():
            await turns()


async def test_what_is_written_reaches_the_guest(followed: Followed) -> None:
    followed.begin()
    followed.hosts.write_text("h1")
    assert await followed.told() == {"hosts": b"h1"}
    followed.resolv.write_text("r1")
    assert await followed.told() == {"resolv": b"r1"}
    with followed.hosts.open("a") as file:  # which stays open
        file.write("2")
        file.flush()
        assert await followed.told() == {"hosts": b"h12"}


async def test_what_is_written_before_they_are_followed_is_not_lost(followed: Followed) -> None:
    """nerdctl may start another container while this one is being created."""
    followed.hosts.write_text("h1")
    followed.resolv.write_text("r1")
    followed.begin()
    assert await followed.told() == {"hosts": b"h1", "resolv": b"r1"}


async def test_an_empty_file_is_content_too(followed: Followed) -> None:
    followed.begin()
    os.truncate(followed.hosts, 0)
    assert await followed.told() == {"hosts": b""}


async def test_mode_and_owner_are_told_too(followed: Followed) -> None:
    followed.begin()
    followed.hosts.chmod(0o604)
    status = followed.hosts.stat()
    assert [*(await followed.request()).files] == [
        guest_pb2.File(name="hosts", content=b"h", mode=0o604, uid=status.st_uid, gid=status.st_gid)
    ]


async def test_the_same_once_more_is_not_sent(followed: Followed) -> None:
    followed.begin()
    followed.hosts.write_text("h")
    os.utime(followed.hosts)
    followed.resolv.write_text("r1")
    assert await followed.told() == {"resolv": b"r1"}


async def test_many_writings_are_few_messages(followed: Followed) -> None:
    followed.world.vminitd.may_rewrite.clear()
    followed.begin()
    followed.hosts.write_text("h1")
    assert await followed.told() == {"hosts": b"h1"}
    for number in range(100):
        followed.hosts.write_text(f"h{number}")
        followed.resolv.write_text(f"r{number}")
        await asyncio.sleep(0)
    followed.world.vminitd.may_rewrite.set()
    assert await followed.told() == {"hosts": b"h99", "resolv": b"r99"}


async def test_one_that_another_takes_the_place_of_stays(followed: Followed, tmp_path: Path) -> None:
    """rename(2): a bind mount goes on showing what it showed."""
    followed.begin()
    (tmp_path / "new").write_text("other")
    (tmp_path / "new").rename(followed.hosts)
    await _logged(tmp_path, "another file stands in its place")
    followed.hosts.write_text("still other")
    followed.resolv.write_text("r1")
    assert await followed.told() == {"resolv": b"r1"}
    assert (tmp_path / "log").read_text().count("copy stays as it is") == 1


async def test_one_that_vanishes_stays(followed: Followed, tmp_path: Path) -> None:
    followed.begin()
    followed.hosts.unlink()
    await _logged(tmp_path, f'file={followed.hosts} error="No such file or directory"')
    followed.resolv.write_text("r1")
    assert await followed.told() == {"resolv": b"r1"}


async def test_a_fifo_in_its_place_is_not_waited_for(followed: Followed, tmp_path: Path) -> None:
    followed.begin()
    followed.hosts.unlink()
    os.mkfifo(followed.hosts)
    followed.resolv.write_text("r1")
    assert await followed.told() == {"resolv": b"r1"}


async def test_one_that_grows_too_large_stays_until_it_shrinks(followed: Followed, tmp_path: Path) -> None:
    followed.begin()
    followed.hosts.write_bytes(bytes(FILES_LIMIT))  # and one byte in the other
    await _logged(tmp_path, "the container's files would have more than 1 MiB together")
    followed.resolv.write_text("")
    assert {name: len(content) for name, content in (await followed.told()).items()} in (
        {"resolv": 0, "hosts": FILES_LIMIT},  # there is room for it now
        {"resolv": 0},
    )
    followed.hosts.write_text("h1")
    while await followed.told() != {"hosts": b"h1"}:
        pass


async def test_what_the_guest_refuses_is_sent_again_with_what_comes_next(followed: Followed, tmp_path: Path) -> None:
    """Though it be what it has been given already: nobody knows what it has."""
    followed.world.vminitd.rewrite_error = StatusError(Code.INTERNAL, "no room")
    followed.begin()
    followed.hosts.write_text("h1")
    assert await followed.told() == {"hosts": b"h1"}
    await _logged(tmp_path, f'msg="the guest has not taken the new content of files" files={followed.hosts}')
    followed.world.vminitd.rewrite_error = None
    followed.resolv.write_text("r1")
    assert await followed.told() == {"hosts": b"h1", "resolv": b"r1"}
    followed.resolv.write_text("r2")
    assert await followed.told() == {"resolv": b"r2"}


async def test_a_guest_that_does_not_answer_is_not_waited_for(
    followed: Followed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "GUEST_CALL_S", 0.05)
    followed.world.vminitd.may_rewrite.clear()
    followed.begin()
    followed.hosts.write_text("h1")
    assert await followed.told() == {"hosts": b"h1"}
    await _logged(tmp_path, "the guest did not answer within 0.05 s")
    followed.resolv.write_text("r1")
    assert await followed.told() == {"hosts": b"h1", "resolv": b"r1"}
    followed.world.vminitd.may_rewrite.set()


async def test_nothing_more_is_sent_once_the_machine_is_gone(followed: Followed, tmp_path: Path) -> None:
    followed.world.vminitd.may_rewrite.clear()
    followed.begin()
    followed.hosts.write_text("h1")
    assert await followed.told() == {"hosts": b"h1"}
    followed.world.died.set_result(MachineExit(Cause.KILLED, -9))
    await _logged(tmp_path, "the guest hears of no more changes to files")
    followed.world.vminitd.may_rewrite.set()


async def test_the_end_comes_at_once_while_the_guest_is_asked(followed: Followed) -> None:
    followed.world.vminitd.may_rewrite.clear()
    followed.begin()
    followed.hosts.write_text("h1")
    await followed.request()
    await asyncio.wait_for(followed.files.close(), _DEADLINE_S)
    followed.world.vminitd.may_rewrite.set()


async def test_nothing_stays_open(tmp_path: Path, log: Logger) -> None:
    world = World(log)
    path = tmp_path / "hosts"
    path.write_text("h")
    with same_fds():
        files = HostFiles("c", (HostFile("0", path),), log)
        files.read()
        files.begin(world.guest)
        path.write_text("h1")
        await asyncio.wait_for(world.vminitd.rewrites.get(), _DEADLINE_S)
        await asyncio.wait_for(files.close(), _DEADLINE_S)
    await world.close()
