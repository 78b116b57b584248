"""A container that a commit pauses goes on afterwards, whatever becomes of the pause; one that others paused not."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from api import containerd_pb2 as api
from api import task_types_pb2 as states
from shim.commit import commit
from shim.commit.base import Base
from shim.commit.commit import Wish, _standing_still, _Work
from shim.commit.source import Comparison
from shim.containerd.client import Client
from shim.containerd.snapshots import Snapshots
from shim.errors import HostError, QemuboxError, StateError


class Containerd:
    """Answers what the state of the task is, one after the other, and how it was paused; the last one stays."""

    def __init__(self, said: Sequence["states.Status | QemuboxError | None"], failure: QemuboxError | None) -> None:
        self._said = [*said]
        self._failure = failure
        self.resumed = 0

    async def status(self, _container: str) -> "states.Status | None":
        said = self._said.pop(0) if len(self._said) > 1 else self._said[0]
        if isinstance(said, QemuboxError):
            raise said
        return said

    async def pause(self, _container: str) -> None:
        if self._failure is not None:
            raise self._failure

    async def resume(self, _container: str) -> None:
        self.resumed += 1


@pytest.fixture(autouse=True)
def _no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_RETRY_S", 0.0)


async def _stand_still(containerd: Containerd) -> None:
    client = cast("Client", containerd)
    place, base = Comparison(Path("/nowhere")), Base("", {}, {})
    container = api.Container(id="c1")
    work = _Work(client, Wish("c1", "x"), container, cast("Snapshots", None), "", place, base, {}, "", None)
    async with _standing_still(work):
        pass


async def test_it_goes_on() -> None:
    containerd = Containerd([states.RUNNING, states.PAUSED], None)
    await _stand_still(containerd)
    assert containerd.resumed == 1


async def test_a_pause_whose_answer_was_lost_is_taken_back() -> None:
    """containerd was restarted meanwhile, and the shim paused the container all the same."""
    lost = HostError("pause c1: the connection to containerd has ended")
    containerd = Containerd([states.RUNNING, lost, lost, states.PAUSING, states.PAUSED], lost)
    with pytest.raises(HostError, match="the connection to containerd has ended"):
        await _stand_still(containerd)
    assert containerd.resumed == 1


async def test_a_pause_that_failed_leaves_it_running() -> None:
    containerd = Containerd([states.RUNNING], HostError("pause c1: no"))
    with pytest.raises(HostError, match="pause c1: no"):
        await _stand_still(containerd)
    assert containerd.resumed == 0


async def test_an_interruption_while_it_is_resumed_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    containerd = Containerd([states.RUNNING, states.PAUSED], None)
    asked, answered = asyncio.Event(), asyncio.Event()
    status = containerd.status

    async def slowly(container: str) -> "states.Status | None":
        said = await status(container)
        if said == states.PAUSED:
            asked.set()
            await answered.wait()
        return said

    monkeypatch.setattr(containerd, "status", slowly)
    standing = asyncio.create_task(_stand_still(containerd))
    await asked.wait()
    standing.cancel()
    await asyncio.sleep(0)
    answered.set()
    with pytest.raises(asyncio.CancelledError):
        await standing
    assert containerd.resumed == 1


async def test_one_that_somebody_else_has_paused_stays_so() -> None:
    containerd = Containerd([states.RUNNING, states.PAUSED], StateError("pause c1: it is paused"))
    with pytest.raises(StateError, match="it is paused"):
        await _stand_still(containerd)
    assert containerd.resumed == 0


async def test_one_that_pauses_for_ever_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "CONTAINERD_PAUSE_S", 0.01)
    containerd = Containerd([states.RUNNING, states.PAUSING], HostError("pause c1: no answer"))
    with pytest.raises(HostError, match=r"container c1: is still paused: its task is pausing .*ctr tasks resume c1"):
        await _stand_still(containerd)
