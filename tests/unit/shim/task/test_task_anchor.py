"""What stands for a process on the host ends before its end is told, and whoever ends it ends the process."""

import asyncio
from pathlib import Path

import pytest
from google.protobuf.message import Message

from api import task_pb2
from tests.unit.shim.task.exec_calls import exec_request, running, start, wait
from tests.unit.shim.task.service_world import Shim
from tests.unit.shim.task.world import World, turns


async def _with_exec(shim: Shim) -> World:
    world = await running(shim)
    await shim.task.Exec(exec_request(), timeout_s=20)
    await start(shim)
    return world


async def _eventually(words: str, tmp_path: Path) -> None:
    async with asyncio.timeout(20):
        while words not in (tmp_path / "log").read_text():
            await turns()


@pytest.mark.parametrize("exec_id", ["", "e"])
async def test_it_is_gone_when_the_end_is_told(shim: Shim, exec_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = await _with_exec(shim)
    anchor = shim.made.anchors[0] if exec_id else shim.made.first_anchor
    assert anchor is not None
    assert anchor.lives
    lived: list[bool] = []
    publish = shim.told.publish

    def look_and_publish(event: Message) -> None:
        lived.append(anchor.lives)
        publish(event)

    monkeypatch.setattr(shim.told, "publish", look_and_publish)
    world.vminitd.execs["e"].end(0)
    if not exec_id:
        world.vminitd.end(0)
    await wait(shim, exec_id)
    assert lived[-1] is False
    assert not world.vminitd.kills


async def test_whoever_ends_the_first_one_ends_the_container(shim: Shim, tmp_path: Path) -> None:
    world = await running(shim)
    assert shim.made.first_anchor is not None
    await shim.made.first_anchor.stop()
    await _eventually("somebody has ended the process", tmp_path)
    await turns()
    assert world.vminitd.kills == [(9, False)]


async def test_whoever_ends_that_of_an_exec_ends_the_exec(shim: Shim, tmp_path: Path) -> None:
    world = await _with_exec(shim)
    await shim.made.anchors[0].stop()
    await _eventually("somebody has ended the process", tmp_path)
    async with asyncio.timeout(20):
        while "kill 9" not in world.vminitd.execs["e"].calls:
            await turns()
    assert world.vminitd.kills == []


async def test_one_that_does_not_end_holds_nothing_up(
    shim: Shim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = await running(shim)

    async def stop() -> None:
        raise TimeoutError

    anchor = shim.made.first_anchor
    assert anchor is not None
    monkeypatch.setattr(anchor, "stop", stop)
    world.vminitd.end(3)
    assert await wait(shim, "") == 3
    assert "anchor does not end" in (tmp_path / "log").read_text()
    await shim.task.Delete(task_pb2.DeleteRequest(id="c"), timeout_s=20)
