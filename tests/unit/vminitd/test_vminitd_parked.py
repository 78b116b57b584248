"""A crun that is begun before its container is known: it waits, goes on, fails and is given up as one that is not."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import LEAVE_BEHIND, World
from vminitd import deadlines
from vminitd.errors import CrunError
from vminitd.launch import launch
from vminitd.parked import ParkedCreate, Shape, park, take
from vminitd.process import Process
from vminitd.spec import safe_name
from vminitd.stdio import Stdio, Wish

IN, OUT, ERR = b"i" * 16, b"o" * 16, b"e" * 16
# Reads its configuration twice, by name, as crun does, and nothing is no configuration.
READ_TWICE = """cat "$bundle/config.json" >"$0.first"
[ -s "$0.first" ] || { echo "no configuration" >"$log"; exit 1; }
cat "$bundle/config.json" >"$0.second"
"""


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


async def begun(world: World, tmp_path: Path, shape: Shape = Shape.PIPES) -> ParkedCreate:
    return await park(world.crun, shape, str(tmp_path / "parked"))


async def go(world: World, parked: ParkedCreate, config: bytes, wish: Wish) -> Process:
    """As a container's create does it."""
    stdio = await Stdio.open(wish, world.machinery.dial, parked.pipes)
    parked.pipes = None
    try:
        started = await launch(world.machinery, stdio, lambda *_: parked.go(config), parked.console)
    except BaseException:
        stdio.close()
        raise
    process = Process("c", "", wish)
    process.adopt(started.pid, stdio, started.ended, lambda: 0)
    stdio.begin(started.master)
    return process


async def test_it_goes_on_with_the_configuration_and_has_the_streams(
    world: World, host: DialledHost, tmp_path: Path
) -> None:
    before = descriptors()
    world.behave(READ_TWICE + "exec 7<&0\n" + LEAVE_BEHIND % "cat <&7; echo err >&2; exit 3")
    parked = await begun(world, tmp_path)
    assert parked.waits
    (call,) = world.calls()
    directory = f"{tmp_path}/parked/+pipes"
    assert call.endswith(f"create --bundle {directory} --pid-file {directory}/pid +pipes")
    config = b"x" * 200_000
    process = await go(world, parked, config, Wish(False, IN, OUT, ERR))
    assert not parked.waits
    assert Path(f"{world.program}.first").read_bytes() == config
    assert Path(f"{world.program}.second").read_bytes() == config
    await host.write(IN, b"in", end=True)
    assert [*await asyncio.gather(host.read(OUT), host.read(ERR))] == [b"in", b"err\n"]
    assert (await process.wait()).status == 3
    await parked.close()
    host.connections[IN].close()
    assert not Path(directory).exists()
    assert descriptors() == before


async def test_what_crun_says_of_the_configuration_is_told(world: World, host: DialledHost, tmp_path: Path) -> None:
    world.behave(READ_TWICE + 'echo "executable file not found" >"$log"; exit 1\n')
    parked = await begun(world, tmp_path)
    with pytest.raises(CrunError) as caught:
        await go(world, parked, b"{}", Wish(False, IN, OUT, ERR))
    assert caught.value.message == "executable file not found"
    await parked.close()
    assert os.listdir(world.program.parent / "state") == []


async def test_one_that_is_given_up_ends_and_leaves_nothing(world: World, tmp_path: Path) -> None:
    before = descriptors()
    world.behave(READ_TWICE)
    parked = await begun(world, tmp_path)
    await parked.close()
    assert not parked.waits
    assert os.listdir(tmp_path / "parked") == []
    assert descriptors() == before


async def test_one_that_has_died_is_not_taken(world: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    world.behave(f'exec 8<"$bundle/config.json"; read line <{gate}\n')
    parked = await begun(world, tmp_path)
    wish = Wish(False, IN, OUT, ERR)
    assert take([parked], Wish(False, IN, OUT, b""), b"{}") is None
    gate.write_text("end\n")
    await parked.ended
    assert take([parked], wish, b"{}") is None
    await parked.close()


async def test_it_is_taken_once_and_only_for_what_it_can_make(world: World, tmp_path: Path) -> None:
    world.behave(READ_TWICE)
    all_of_them = [await begun(world, tmp_path, shape) for shape in Shape]
    there = [*all_of_them]
    assert take(there, Wish(False, IN, OUT, b""), b"{}") is None
    assert take(there, Wish(False, b"", b"", b""), b"{}") is None
    assert take(there, Wish(False, IN, OUT, ERR), b"x" * (1 << 20)) is None
    for wish, shape in (
        (Wish(False, IN, OUT, ERR), Shape.PIPES),
        (Wish(False, b"", OUT, ERR), Shape.OUTPUT),
        (Wish(True, IN, OUT, b""), Shape.TERMINAL),
        (Wish(True, b"", OUT, b""), None),
    ):
        taken = take(there, wish, b"{}")
        assert (taken.shape if taken else None) is shape
    assert there == []
    for parked in all_of_them:
        await parked.close()
        assert parked.ended.done()


async def test_a_terminal_s_has_its_console_socket_where_it_looks(world: World, tmp_path: Path) -> None:
    world.behave(READ_TWICE + 'echo "$@" >"$log"; exit 1\n')
    parked = await begun(world, tmp_path, Shape.TERMINAL)
    assert parked.pipes is None
    with pytest.raises(CrunError, match=re.escape(f"--console-socket {parked.console} +terminal")):
        await go(world, parked, b"{}", Wish(True, b"", OUT, b""))
    await parked.close()


async def test_a_crun_that_does_not_wait_is_an_error(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    world.behave('echo "unknown option" >"$log"; exit 1\n')
    with pytest.raises(CrunError, match="unknown option"):
        await begun(world, tmp_path)
    assert os.listdir(tmp_path / "parked") == []
    monkeypatch.setattr(deadlines, "CRUN", 0.2)
    world.behave("exec sleep 1000\n")
    with pytest.raises(CrunError, match=r"did not end within 0\.2 s"):
        await begun(world, tmp_path)
    assert descriptors() == before


def test_no_container_has_the_name_of_a_parked_one() -> None:
    assert safe_name("+pipes") != "+pipes"
