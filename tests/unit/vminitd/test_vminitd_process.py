"""A fake crun, everything else real: how a process is made, adopted, killed, waited for."""

import asyncio
import os
import signal

import pytest

from tests.unit.vminitd.dialled_host import DialledHost
from tests.unit.vminitd.fake_crun import LEAVE_BEHIND, World
from vminitd import deadlines
from vminitd.errors import CrunError, StateError, UnknownError
from vminitd.process import Process
from vminitd.state import State
from vminitd.stdio import Wish

OUT, ERR = b"o" * 16, b"e" * 16
WISH = Wish(False, b"", OUT, ERR)


async def test_a_process_from_create_to_wait(world: World, host: DialledHost) -> None:
    world.behave(LEAVE_BEHIND % "echo out; echo err >&2; exit 42")
    process = Process("c", "", WISH)
    await world.create(process)
    waiting = [asyncio.create_task(process.wait()) for _ in range(3)]
    assert [*await asyncio.gather(host.read(OUT), host.read(ERR))] == [b"out\n", b"err\n"]
    exits = await asyncio.gather(*waiting)
    assert {(each.status, each.oom_kills) for each in exits} == {(42, 3)}
    assert process.state is State.STOPPED
    assert await process.wait() == exits[0]
    (call,) = world.calls()
    assert "--cgroup-manager=cgroupfs" in call
    assert call.endswith(f"create --bundle {world.bundle} --pid-file {world.bundle}/pid c")


async def test_wait_answers_only_when_the_host_has_all_output(world: World, host: DialledHost) -> None:
    world.behave(LEAVE_BEHIND % "echo out")
    process = Process("c", "", WISH)
    await world.create(process)
    waiting = asyncio.create_task(process.wait())
    await process.gone.wait()
    assert await host.read(ERR) == b""
    await asyncio.wait([waiting], timeout=0.2)
    assert not waiting.done()
    assert await host.read(OUT) == b"out\n"
    assert (await waiting).status == 0


async def test_a_refusal_is_told_in_crun_s_words_and_leaves_nothing(world: World, host: DialledHost) -> None:
    before = len(os.listdir("/proc/self/fd"))
    world.behave('echo "executable file not found" | tee "$log" >&2; exit 1\n')
    with pytest.raises(CrunError) as caught:
        await world.create(Process("c", "", WISH))
    assert caught.value.message == "executable file not found"
    assert await host.hung_up(OUT)
    for connection in host.connections.values():
        connection.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(world.program.parent / "state") == []


async def test_a_silent_failure_has_its_status(world: World) -> None:
    world.behave("exit 3\n")
    with pytest.raises(CrunError, match="crun create failed with status 3 and without a message"):
        await world.create(Process("c", "", WISH))


async def test_success_without_a_pid_is_an_error(world: World) -> None:
    world.behave("exit 0\n")
    with pytest.raises(CrunError, match="did not write the process's pid"):
        await world.create(Process("c", "", WISH))


async def test_a_crun_that_hangs_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "CRUN", 0.2)
    world.behave("exec sleep 1000\n")
    with pytest.raises(CrunError, match=r"crun create did not end within 0\.2 s"):
        await world.create(Process("c", "", WISH))


async def test_a_process_whose_terminal_is_not_handed_over_is_killed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "CONSOLE", 0.2)
    # It holds the writing end of a FIFO: reading that ends when it is gone.
    fifo = world.bundle / "alive"
    os.mkfifo(fifo)
    world.behave(LEAVE_BEHIND % f"exec sleep 1000 >{fifo}")
    reading = asyncio.create_task(asyncio.to_thread(fifo.read_bytes))
    with pytest.raises(CrunError, match="did not hand over the terminal"):
        await world.create(Process("c", "", Wish(True, b"", OUT, b"")))
    assert await asyncio.wait_for(reading, 10) == b""


async def test_signals_reach_it_until_it_has_ended(world: World, host: DialledHost) -> None:
    world.behave(LEAVE_BEHIND % "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done")
    process = Process("c", "", WISH)
    await world.create(process)
    for state in (State.STARTING, State.RUNNING):
        process.move(state)
    await asyncio.get_running_loop().sock_recv(host.connections[OUT], 100)
    process.kill(0)
    process.kill(signal.SIGTERM)
    await process.gone.wait()
    host.connections[OUT].close()
    host.connections[ERR].close()
    assert (await process.wait()).status == 7
    with pytest.raises(UnknownError, match="container 'c': process already finished"):
        process.kill(signal.SIGTERM)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 2), (signal.SIGQUIT, 2), (signal.SIGKILL, 137)])
async def test_one_that_has_not_been_started_ends_as_with_runc(
    world: World, host: DialledHost, number: int, status: int
) -> None:
    world.behave(LEAVE_BEHIND % "trap '' TERM QUIT USR1; echo ready; while :; do sleep 0.01; done")
    process = Process("c", "", WISH)
    await world.create(process)
    await asyncio.get_running_loop().sock_recv(host.connections[OUT], 100)
    process.kill(signal.SIGUSR1)
    process.kill(number)
    await process.gone.wait()
    host.connections[OUT].close()
    host.connections[ERR].close()
    assert (await process.wait()).status == status


async def test_reap_kills_and_tells_want_of_memory(world: World, host: DialledHost) -> None:
    world.behave(LEAVE_BEHIND % "exec sleep 1000")
    process = Process("c", "", WISH)
    await world.create(process)
    reading = asyncio.gather(host.read(OUT), host.read(ERR))
    await process.reap(10)
    await reading
    ended = await process.wait()
    assert (ended.status, ended.oom_kills) == (137, 3)
    await process.reap(10)  # once more is nothing


async def test_a_process_that_is_only_registered() -> None:
    process = Process("c", "e", WISH)
    with pytest.raises(StateError, match="process 'e' of container 'c' is created, and not running yet"):
        process.kill(9)
    with pytest.raises(StateError, match="has no terminal"):
        process.resize(1, 1)
    await process.reap(1)
    process.move(State.STARTING)
    process.fail()
    assert (await process.wait()).status == 127
    assert process.state is State.STOPPED
    with pytest.raises(UnknownError, match="already finished"):
        process.kill(9)
