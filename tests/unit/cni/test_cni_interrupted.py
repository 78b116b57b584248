"""Who runs the plugins is cancelled, or killed: what is made is undone, by it or by who comes after."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest

from cni import Cni, CniError, LockTimeout, PluginError
from tests.unit.cni.fakes import Fakes, Sign, error, made, network, on

_ROOT = Path(__file__).parents[3]

# Adds a container by what it is told, as a process of its own.
_ADD = """
import asyncio, sys
from pathlib import Path
from cni import Attachment, Cni
sys.path.insert(0, {root!r})
from tests.unit.cni.fakes import network
def spawned(pid):
    {on_spawn}
places = dict(plugin_dirs=[Path({plugins!r})], cache_dir=Path({cache!r}), lock=Path({lock!r}))
cni = Cni(**places, timeout_s=30, on_spawn=spawned)
asyncio.run(cni.add(network("first", "second"), Attachment("c1", {netns!r}, "eth0")))
"""


def _program(fakes: Fakes, on_spawn: str = "pass") -> str:
    return _ADD.format(
        root=str(_ROOT),
        on_spawn=on_spawn,
        plugins=str(fakes.plugin_dir),
        cache=str(fakes.cache_dir),
        lock=str(fakes.lock),
        netns=fakes.netns,
    )


async def _adding(fakes: Fakes, on_spawn: str = "pass") -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _program(fakes, on_spawn), cwd=_ROOT)


async def test_a_cancelled_add_is_undone(fakes: Fakes, tmp_path: Path) -> None:
    started = Sign(tmp_path / "started")
    fakes.plugin("first", add=made())
    fakes.plugin("second", on("ADD", f"echo $$ >{started.path}; exec sleep 600"))
    adding = asyncio.ensure_future(fakes.cni().add(network("first", "second"), fakes.attachment()))
    pid = await started.given()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    assert not Path(f"/proc/{pid}").exists()
    assert fakes.said() == ["ADD first", "ADD second", "DEL second", "DEL first"]
    assert fakes.calls()[2].request["prevResult"] == made()
    assert fakes.entries() == []
    await fakes.cni(timeout_s=1).delete(network("first"), fakes.attachment())  # the lock is free


async def test_the_lock_outlasts_a_kill_until_the_plugin_has_ended(fakes: Fakes, tmp_path: Path) -> None:
    started, go_on = Sign(tmp_path / "started"), Sign(tmp_path / "go-on")
    fakes.plugin("first", add=made())
    wait = f"exec 3<>{go_on.path}; echo x >{started.path}; read word <&3"
    fakes.plugin("second", on("ADD", wait), add=made("10.9.0.3/24"))
    child = await _adding(fakes)
    await started.given()
    child.kill()
    await child.wait()
    with pytest.raises(LockTimeout, match=r"ADD of network 'testnet', container 'c1', interface 'eth0'\) has it"):
        await fakes.cni(timeout_s=0.3).delete(network("first", "second"), fakes.attachment())
    deleting = asyncio.ensure_future(fakes.cni().delete(network("first", "second"), fakes.attachment()))
    await asyncio.wait([deleting], timeout=0.2)
    assert fakes.said() == ["ADD first", "ADD second"]
    go_on.give()
    await deleting
    assert fakes.said()[2:] == ["DEL second", "DEL first"]
    assert fakes.calls()[2].request["prevResult"] == made()  # what first has made was written down before second ran
    assert fakes.entries() == []


async def test_what_a_killed_add_leaves_is_in_the_cache(fakes: Fakes, tmp_path: Path) -> None:
    started = Sign(tmp_path / "started")
    fakes.plugin("first", on("ADD", f"echo x >{started.path}; exec sleep 600"))
    fakes.plugin("second")
    pids = tmp_path / "pids"
    child = await _adding(fakes, f"open({str(pids)!r}, 'w').write(str(pid))")
    await started.given()
    child.kill()
    await child.wait()
    os.killpg(int(pids.read_text()), signal.SIGKILL)  # as who reads the journal of a shim does
    runner = fakes.cni()
    (left,) = runner.cached()
    assert (left.attachment, left.result) == (fakes.attachment(), None)
    assert [plugin.type for plugin in left.network.plugins] == ["first", "second"]
    await runner.delete(left.network, left.attachment)
    assert runner.cached() == []


async def test_a_plugin_does_nothing_if_we_die_before_it_is_told_what(fakes: Fakes) -> None:
    """Its standard input ends, and no plugin takes that for a configuration."""
    read = Sign(fakes.plugin_dir.parent / "read")
    fakes.foreign("first", f"#!/bin/sh\nwc -c >{read.path}\n")
    fakes.plugin("second")
    child = await _adding(fakes, "import os; os.kill(os.getpid(), 9)")
    assert await child.wait() == -signal.SIGKILL
    assert await read.given() == "0"


async def test_on_spawn_comes_before_standard_input(fakes: Fakes, tmp_path: Path) -> None:
    fakes.plugin("only", on("ADD", f"echo $$ >{tmp_path}/pid"), add=made())
    told: list[tuple[int, list[str], int]] = []

    def spawned(pid: int) -> None:
        told.append((pid, fakes.said(), os.getsid(pid)))

    await fakes.cni(on_spawn=spawned).add(network("only"), fakes.attachment())
    pid = int((tmp_path / "pid").read_text())
    assert told == [(pid, [], pid)]


async def test_what_cannot_be_written_down_is_not_done(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())

    def spawned(pid: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        await fakes.cni(on_spawn=spawned).add(network("only"), fakes.attachment())
    assert fakes.said() == ["DEL only"]  # that one goes on all the same
    assert fakes.entries() == []


async def test_a_lock_that_nobody_can_open(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())
    fakes.lock.parent.write_text("a file")
    with pytest.raises(
        CniError, match=r"the lock of CNI, .*cni\.lock, cannot be opened: (File exists|Not a directory)"
    ):
        await fakes.cni().add(network("only"), fakes.attachment())


async def test_chains_run_one_by_one(fakes: Fakes, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    alone = f"mkdir {inside} || exit 9; sleep 0.02; rmdir {inside}"
    for name in ("first", "second"):
        fakes.plugin(name, alone, add=made())
    runners = [fakes.cni() for _ in range(8)]
    listed = network("first", "second")
    await asyncio.gather(*(runner.add(listed, fakes.attachment(f"c{n}")) for n, runner in enumerate(runners)))
    await asyncio.gather(*(runner.delete(listed, fakes.attachment(f"c{n}")) for n, runner in enumerate(runners)))
    chains = ["ADD first", "ADD second"] * 8 + ["DEL second", "DEL first"] * 8
    assert fakes.said() == chains
    assert fakes.entries() == []


async def test_who_waits_for_the_lock_can_be_cancelled(fakes: Fakes) -> None:
    fakes.plugin("only", add=made())
    fakes.lock.parent.mkdir()
    with fakes.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        adding = asyncio.ensure_future(fakes.cni().add(network("only"), fakes.attachment()))
        await asyncio.wait([adding], timeout=0.2)
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
    assert fakes.said() == []
    await fakes.cni().add(network("only"), fakes.attachment())


async def test_the_lock_is_free_after_a_failure(fakes: Fakes) -> None:
    fakes.plugin("only", error(7, "no"))
    runner: Cni = fakes.cni(timeout_s=1)
    for _ in range(3):
        with pytest.raises(PluginError):
            await runner.add(network("only"), fakes.attachment())
