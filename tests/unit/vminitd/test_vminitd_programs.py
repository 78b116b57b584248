"""Programs in the guest's own root: their streams, their status, their end when nobody waits for it any more."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from api import programs_pb2 as pb
from api.guest_pb2 import Stdio
from tests.unit.vminitd.dialled_host import DialledHost
from ttrpc import Code, Context, StatusError
from vminitd.programs import PROGRAMS_MOST, Programs, find
from vminitd.reaper import Reaper
from vminitd.services.programs import ProgramsService

_Result = TypeVar("_Result")
_IN, _OUT, _ERR = (bytes([number]) * 16 for number in (1, 2, 3))
_LIMIT_MS = 15_000


async def soon(what: Awaitable[_Result]) -> _Result:
    return await asyncio.wait_for(what, 20)


class Site:
    """The service, and a host that it dials."""

    def __init__(self, reaper: Reaper, host: DialledHost) -> None:
        self.host = host
        self.programs = Programs(reaper, host.dial)
        self.service = ProgramsService(self.programs)

    async def run(
        self, *words: str, stdin: bytes = b"", stdout: bytes = _OUT, stderr: bytes = _ERR, limit_ms: int = _LIMIT_MS
    ) -> pb.RunResponse:
        streams = Stdio(stdin=stdin, stdout=stdout, stderr=stderr)
        request = pb.RunRequest(arguments=[word.encode() for word in words], streams=streams, limit_ms=limit_ms)
        return await soon(self.service.Run(request, Context()))

    async def ended(self, run: pb.RunResponse) -> pb.EndedResponse:
        return await soon(self.service.Ended(pb.EndedRequest(program=run.program), Context()))


@pytest.fixture
async def site(reaper: Reaper, host: DialledHost) -> AsyncIterator[Site]:
    made = Site(reaper, host)
    yield made
    await made.programs.close()


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_output_status_and_no_input(site: Site) -> None:
    run = await site.run("sh", "-c", "cat; /usr/bin/env -u PWD; echo 2 >&2; exit 9")
    environment = dict(line.split("=") for line in (await soon(site.host.read(_OUT))).decode().splitlines())
    assert environment.keys() - {"_", "OLDPWD", "SHLVL"} == {"PATH"}
    assert await soon(site.host.read(_ERR)) == b"2\n"
    end = await site.ended(run)
    assert (end.status, end.late) == (9, False)
    with pytest.raises(StatusError, match="there is no program 1"):
        await site.ended(run)


async def test_input_goes_through(site: Site) -> None:
    run = await site.run("cat", stdin=_IN)
    await site.host.write(_IN, b"through\n", end=True)
    assert await soon(site.host.read(_OUT)) == b"through\n"
    await soon(site.host.read(_ERR))
    assert (await site.ended(run)).status == 0


async def test_one_whose_time_is_up_is_ended_with_its_children(site: Site) -> None:
    run = await site.run("sh", "-c", "sleep 60 & sleep 60; :", limit_ms=200)
    await soon(asyncio.gather(site.host.read(_OUT), site.host.read(_ERR)))
    end = await site.ended(run)
    assert (end.status, end.late) == (137, True)
    assert _gone(run.pid)


async def test_one_that_nobody_waits_for_any_more_is_ended(site: Site) -> None:
    run = await site.run("sleep", "60")
    waiting = asyncio.create_task(site.service.Ended(pb.EndedRequest(program=run.program), Context()))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    await soon(asyncio.gather(site.host.read(_OUT), site.host.read(_ERR)))
    with pytest.raises(StatusError, match="there is no program"):
        await site.ended(run)


async def test_it_can_be_ended(site: Site) -> None:
    run = await site.run("sleep", "60")
    await soon(site.service.End(pb.EndRequest(program=run.program), Context()))
    await soon(asyncio.gather(site.host.read(_OUT), site.host.read(_ERR)))
    assert (await site.ended(run)).status == 137
    with pytest.raises(StatusError, match="there is no program 7"):
        await site.service.End(pb.EndRequest(program=7), Context())


async def test_what_is_refused(site: Site) -> None:
    for words, code, text in (
        (("no-such-program",), Code.NOT_FOUND, "no-such-program: the guest's root has no such program"),
        (("/no/such",), Code.NOT_FOUND, "/no/such"),
        (("/etc",), Code.NOT_FOUND, "/etc"),
        ((), Code.INVALID_ARGUMENT, "a program has a name"),
        (("a\0b",), Code.INVALID_ARGUMENT, "no NUL"),
    ):
        with pytest.raises(StatusError, match=text) as refused:
            await site.run(*words)
        assert refused.value.code is code
    with pytest.raises(StatusError, match="has a time"):
        await site.run("true", limit_ms=0)
    terminal = pb.RunRequest(arguments=[b"true"], streams=Stdio(terminal=True, stdout=_OUT), limit_ms=1)
    with pytest.raises(StatusError, match="no terminal"):
        await site.service.Run(terminal, Context())
    assert site.host.connections == {}


async def test_not_more_than_that_many(site: Site) -> None:
    runs = [await site.run("sleep", "60", stdout=bytes([number]) * 16, stderr=b"") for number in range(PROGRAMS_MOST)]
    with pytest.raises(StatusError, match=f"{PROGRAMS_MOST} programs run already"):
        await site.run("true")
    await soon(site.programs.close())
    assert all(_gone(run.pid) for run in runs)


async def test_a_program_that_cannot_be_executed_leaves_nothing(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(StatusError, match="cannot start"):
        await site.run(str(broken))
    assert await soon(site.host.hung_up(_OUT))


def test_a_name_is_looked_for_in_path() -> None:
    assert find("sh") in ("/usr/bin/sh", "/bin/sh")
    assert find(sys.executable) == sys.executable
