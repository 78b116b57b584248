"""Copies as the guest makes them, by real children, over socket pairs: what a path is, and how a copy ends."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from api import archive_pb2 as pb
from api.guest_pb2 import Stdio
from archive.pack import pack
from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import World
from ttrpc import Context
from vminitd.copies import Copies
from vminitd.process import Process
from vminitd.rootfs import Rootfs
from vminitd.services.archive import ArchiveService
from vminitd.state import State
from vminitd.stdio import Wish

TOKEN = b"t" * 16
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
        self.service = ArchiveService(self)  # type: ignore[arg-type]

    def get(self, container_id: str) -> "Site":
        assert container_id == "c"
        return self

    async def read(self, path: str, *, follow: bool = False) -> int:
        request = pb.ReadRequest(container_id="c", path=path.encode(), follow=follow, streams=Stdio(stdout=TOKEN))
        return (await soon(self.service.Read(request, Context()))).copy

    async def write(self, directory: str, name: bytes = b"") -> int:
        request = pb.WriteRequest(container_id="c", directory=directory.encode(), name=name, streams=Stdio(stdin=TOKEN))
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
    stream = await soon(site.host.read(TOKEN))
    assert (await site.finish(copy)).notes == []
    assert stream == packed(site.root / "dir")
    copy = await site.write("/dir", b"again")
    await soon(site.host.write(TOKEN, stream, end=True))
    assert await soon(site.host.hung_up(TOKEN))
    assert (await site.finish(copy)).stopped
    assert packed(site.root / "dir/again/f") == packed(site.root / "dir/f")
