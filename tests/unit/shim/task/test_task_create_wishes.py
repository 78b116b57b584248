"""A machine is begun before Create for a container that may be had, and for no other."""

import json
import threading
from pathlib import Path
from typing import cast

import pytest

from api import task_pb2
from shim import annotations, deadlines, spec
from shim.anchor import Anchors
from shim.annotations import Wishes
from shim.config import parse
from shim.errors import HostError, SpecError
from shim.host import bounds
from shim.identity import Identity
from shim.log import Logger
from shim.prelaunch import Prelaunch
from shim.task.create import Creator
from tests.unit.shim.task.service_world import Told


def _wishes(bundle: Path, value: str) -> Wishes:
    document = {"annotations": {"io.qemubox.vm.console_kib": value}}
    (bundle / "config.json").write_text(json.dumps(document))
    return annotations.read(parse('[annotations]\nallow = ["vm.console_kib"]'), bundle)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Prelaunch]:
    """The machines that were begun."""
    found: list[Prelaunch] = []

    def begin(prelaunch: Prelaunch, *, shared_memory: bool) -> None:
        assert not shared_memory
        found.append(prelaunch)

    monkeypatch.setattr(Prelaunch, "begin", begin)
    return found


def _creator(wishes: Wishes, directory: Path, log: Logger) -> Creator:
    return Creator(
        wishes,
        Identity("/a", "ns", "c"),
        directory,
        bounds=bounds(wishes.config),
        anchors=cast("Anchors", None),
        events=Told(),
        guest_log_level="info",
        log=log,
    )


def test_a_machine_is_begun_with_what_the_container_asked_for(
    begun: list[Prelaunch], tmp_path: Path, log: Logger
) -> None:
    creator = _creator(_wishes(tmp_path, "16"), tmp_path, log)
    creator.prepare()
    assert [each._config.vm.console_kib for each in begun] == [16]


async def test_none_is_begun_for_what_will_be_refused(begun: list[Prelaunch], tmp_path: Path, log: Logger) -> None:
    creator = _creator(_wishes(tmp_path, "1"), tmp_path, log)
    creator.prepare()
    assert begun == []
    with pytest.raises(SpecError, match=r"io\.qemubox\.vm\.console_kib = '1' must be a whole number from 16 to 256"):
        await creator.create(task_pb2.CreateTaskRequest(id="c", bundle=str(tmp_path)))


async def test_sources_that_do_not_answer_fail_create(
    tmp_path: Path, log: Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(deadlines, "SOURCES_S", 0.01)
    monkeypatch.setattr(spec, "for_guest", lambda *_, **__: answers.wait(60))
    (tmp_path / "config.json").write_text("{}")
    try:
        with pytest.raises(HostError, match=r"a source of the container's mounts does not answer within 0\.01 s"):
            await _creator(annotations.read(parse(""), tmp_path), tmp_path, log).create(
                task_pb2.CreateTaskRequest(id="c", bundle=str(tmp_path))
            )
    finally:
        answers.set()
