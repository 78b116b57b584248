"""Directories and files of the host in a container, as a bind mount of runc's shows them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.box import Box

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def directory(box: Box) -> Iterator[Path]:
    """A directory of the host's, to be mounted."""
    path = box.containerd.cell.directory / f"volume-{box.new_id()}"
    path.mkdir()
    yield path
    import shutil

    shutil.rmtree(path)


def mounted(path: Path, at: str = "/v", how: str = "rbind:rw") -> tuple[str, ...]:
    return "--mount", f"type=bind,src={path},dst={at},options={how}"


def test_first(box: Box, directory: Path) -> None:
    (directory / "f").write_text("from the host\n")
    done = box.run(
        "sh", "-c", "cat /v/f; echo to the host > /v/g; id; ls -la /v; mount | grep /v", options=mounted(directory)
    )
    print(done)
    assert done.checked().text.startswith("from the host")
    assert (directory / "g").read_text() == "to the host\n"
