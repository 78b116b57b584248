"""Copies as the guest makes them, by real children, over socket pairs: what a path is, and how a copy ends."""

import asyncio
import io
import itertools
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from api import archive_pb2 as pb
from api.guest_pb2 import Stdio
from archive.pack import pack
from archive.records import Entry, Kind, encode
from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import World
from ttrpc import Code, Context, StatusError
from vminitd import deadlines
from vminitd.copies import Copies
from vminitd.process import Process
from vminitd.rootfs import Rootfs
from vminitd.services.archive import COPIES_MOST, ArchiveService
from vminitd.state import State
from vminitd.stdio import Wish

_Result = TypeVar("_Result")


async def soon(what: Awaitable[_Result]) -> _Result:
    return await asyncio.wait_for(what, 20)


class Site:
    """One container that has ended, its root file system a directory, and the service."""

    def __init__(self, directory: Path, world: World, host: DialledHost) -> None:
        self.root = directory / "c/rootfs"
        self.root.mkdir(parents=True)
        self.host = host
        self.init = Process("c", "", Wish(terminal=False, stdin=b"", stdout=b"", stderr=b""))
        self.init.state = State.STOPPED
        self.copies = Copies(world.machinery, self.init, Rootfs(str(directory / "c")))
        self._numbers = itertools.count(1)
        self.token = b""
        """Of the copy that was begun last."""
        self.service = ArchiveService(self)  # type: ignore[arg-type]

    def new_token(self) -> bytes:
        self.token = next(self._numbers).to_bytes(16, "big")
        return self.token

    def get(self, container_id: str) -> "Site":
        assert container_id == "c"
        return self

    async def read(self, path: str, *, follow: bool = False) -> int:
        request = pb.ReadRequest(
            container_id="c", path=path.encode(), follow=follow, streams=Stdio(stdout=self.new_token())
        )
        return (await soon(self.service.Read(request, Context()))).copy

    async def write(self, directory: str, name: bytes = b"") -> int:
        request = pb.WriteRequest(
            container_id="c", directory=directory.encode(), name=name, streams=Stdio(stdin=self.new_token())
        )
        return (await soon(self.service.Write(request, Context()))).copy

    async def finish(self, copy: int) -> pb.FinishResponse:
        return await soon(self.service.Finish(pb.FinishRequest(copy=copy), Context()))


@pytest.fixture
async def site(tmp_path: Path, world: World, host: DialledHost) -> AsyncIterator[Site]:
    made = Site(tmp_path, world, host)
    yield made
    await made.copies.close()


def packed(path: Path) -> bytes:
    place = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        stream = io.BytesIO()
        pack(place, stream.write, print)
        return stream.getvalue()
    finally:
        os.close(place)


async def test_out_and_in(site: Site) -> None:
    (site.root / "dir").mkdir()
    (site.root / "dir/f").write_bytes(os.urandom(300_000))
    copy = await site.read("/dir")
    stream = await soon(site.host.read(site.token))
    assert (await site.finish(copy)).notes == []
    assert stream == packed(site.root / "dir")
    copy = await site.write("/dir", b"again")
    await soon(site.host.write(site.token, stream, end=True))
    assert await soon(site.host.hung_up(site.token))
    assert (await site.finish(copy)).stopped
    assert packed(site.root / "dir/again/f") == packed(site.root / "dir/f")


async def status(what: Awaitable[object]) -> tuple[Code, str]:
    with pytest.raises(StatusError) as caught:
        await what
    return caught.value.code, caught.value.message


async def test_paths_are_the_containers(site: Site, tmp_path: Path) -> None:
    """Links begin at its root directory, and end there."""
    (tmp_path / "outside").write_text("outside")
    (site.root / "etc").mkdir()
    (site.root / "etc/f").write_text("inside")
    (site.root / "absolute").symlink_to("/etc")
    (site.root / "up").symlink_to("../../../../../../outside")
    (site.root / "magic").symlink_to("/proc/1/root")

    async def look(path: str, *, follow: bool = False) -> pb.LookResponse:
        return await soon(
            site.service.Look(pb.LookRequest(container_id="c", path=path.encode(), follow=follow), Context())
        )

    assert (await look("/absolute/f")).mode == (site.root / "etc/f").stat().st_mode
    assert (await look("/absolute")).target == b"/etc"
    assert (await look("/absolute", follow=True)).mode == (site.root / "etc").stat().st_mode
    assert (await look("/../../etc/f")).mode
    assert await status(look("/up", follow=True)) == (Code.NOT_FOUND, "/up: No such file or directory")
    assert await status(look("/etc/f/x")) == (Code.NOT_FOUND, "/etc/f/x: Not a directory")
    (site.root / "loop").symlink_to("loop")
    assert (await status(look("/loop/x")))[0] is Code.INTERNAL


async def test_what_a_copy_cannot_be(site: Site) -> None:
    (site.root / "f").write_text("")
    assert (await status(site.write("/f")))[0] is Code.INVALID_ARGUMENT
    assert (await status(site.write("/none")))[0] is Code.NOT_FOUND
    assert (await status(site.read("/none")))[0] is Code.NOT_FOUND
    for name in (b"..", b"a/b"):
        assert (await status(site.write("/", name)))[0] is Code.INVALID_ARGUMENT
    assert (await status(site.finish(7)))[0] is Code.NOT_FOUND
    token = bytes(16)
    for streams in (Stdio(), Stdio(stdin=token), Stdio(stdout=b"short"), Stdio(stdout=token, stderr=token)):
        request = pb.ReadRequest(container_id="c", path=b"/f", streams=streams)
        assert (await status(site.service.Read(request, Context())))[0] is Code.INVALID_ARGUMENT


async def test_there_is_a_bound_of_copies(site: Site) -> None:
    copies = [await site.write("/") for _ in range(COPIES_MOST)]
    assert (await status(site.write("/")))[0] is Code.INVALID_ARGUMENT
    await site.copies.close()
    for copy in copies:
        assert (await status(site.finish(copy)))[0] is Code.FAILED_PRECONDITION


async def test_an_error_is_told_with_its_status(site: Site) -> None:
    (site.root / "d").mkdir()
    copy = await site.write("/")
    stream = encode(Entry(b"", Kind.DIRECTORY)) + encode(Entry(b"d", Kind.FIFO))
    await soon(site.host.write(site.token, stream, end=False))
    assert await soon(site.host.hung_up(site.token))
    code, message = await status(site.finish(copy))
    assert (code, message) == (Code.FAILED_PRECONDITION, "d: what is no directory does not take the place of one")
    copy = await site.write("/")
    await soon(site.host.write(site.token, stream[:-3], end=True))
    assert await status(site.finish(copy)) == (Code.ABORTED, "the copy was cut short")


async def test_it_ends_when_the_host_goes_away(site: Site) -> None:
    with (site.root / "big").open("wb") as big:
        big.write(bytes(8 << 20))
    for begun in (site.read("/big"), site.write("/")):
        copy = await begun
        site.host.connections[site.token].close()
        assert (await status(site.finish(copy)))[0] is Code.CANCELLED


async def test_the_end_of_the_container_ends_what_is_written_and_not_what_is_read(site: Site) -> None:
    site.init.state = State.RUNNING
    writing = await site.write("/")
    (site.root / "f").write_bytes(bytes(100_000))
    reading = await site.read("/f")
    site.copies.ended()
    code, message = await status(site.finish(writing))
    assert (code, message) == (Code.FAILED_PRECONDITION, "container 'c' ended while it was copied into")
    assert len(await soon(site.host.read(site.token))) > 100_000
    assert not (await site.finish(reading)).stopped


async def test_a_paused_container_is_not_written_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "COPY_PAUSED", 0.2)
    (site.root / "f").write_text("")
    writing = await site.write("/")
    site.init.state = State.PAUSED
    site.copies.paused()
    assert (await status(site.write("/")))[0] is Code.FAILED_PRECONDITION
    copy = await site.read("/f")
    await soon(site.host.read(site.token))
    await site.finish(copy)
    assert "was paused for 0.2 s while it was copied into" in (await status(site.finish(writing)))[1]


async def test_one_that_is_resumed_in_time_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "COPY_PAUSED", 0.2)
    writing = await site.write("/")
    site.copies.paused()
    site.copies.resumed()
    await asyncio.sleep(0.3)
    await soon(site.host.write(site.token, packed(site.root), end=True))
    await site.finish(writing)


async def test_the_child_holds_nothing_that_is_not_its_own(site: Site) -> None:
    """A pipe's reader would never see the end of it."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    copy = await site.write("/")
    os.close(writing)
    assert await soon(asyncio.to_thread(os.read, reading, 1)) == b""
    os.close(reading)
    await site.copies.close()
    await status(site.finish(copy))
