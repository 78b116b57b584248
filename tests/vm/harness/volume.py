"""Directories of the host for containers to mount, and what is said of them on `ctr`'s command line."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import RUN_DEADLINE_S, Box
from harness.containerd import Result


@pytest.fixture
def volume(box: Box) -> Iterator[Path]:
    """An empty directory of the host's."""
    path = box.containerd.cell.directory / f"volume-{box.new_id()}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def mounted(source: Path, at: str = "/v", how: str = "rw") -> tuple[str, str]:
    """The options of `ctr run` for a bind mount."""
    return "--mount", f"type=bind,src={source},dst={at},options=rbind:{how}"


def execute(box: Box, container: str, script: str) -> Result:
    """Run a shell's script in a container that runs."""
    command = ("tasks", "exec", "--exec-id", box.new_id(), container, "sh", "-c", script)
    return box.containerd.ctr(*command, deadline_s=RUN_DEADLINE_S)


def end(box: Box, container: str) -> None:
    """Kill and remove a container that runs."""
    box.kill(container).checked()
    box.wait_stopped(container)
    box.delete_task(container)
    box.remove(container).checked()
