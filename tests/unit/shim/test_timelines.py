"""The file of start times: a line each, bounded."""

import json
from pathlib import Path

from shim import timelines


def add(directory: Path, container_id: str, *, template: bool = False) -> None:
    phases, guest = {"create": 0.0, "started": 1.5}, {"python": 2.0}
    timelines.append(
        directory, namespace="ns", container_id=container_id, phases=phases, guest=guest, template=template
    )


def test_a_line_says_who_how_and_when(tmp_path: Path) -> None:
    add(tmp_path, "c1")
    add(tmp_path, "c2", template=True)
    first, second = map(json.loads, (tmp_path / timelines.FILE_NAME).read_text().splitlines())
    assert first == {
        "namespace": "ns",
        "id": "c1",
        "template": False,
        "phases": {"create": 0.0, "started": 1.5},
        "guest": {"python": 2.0},
    }
    assert (second["id"], second["template"]) == ("c2", True)


def test_it_is_roots_alone(tmp_path: Path) -> None:
    add(tmp_path, "c1")
    assert (tmp_path / timelines.FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_two_files_of_a_bounded_size(tmp_path: Path) -> None:
    for number in range(4000):
        add(tmp_path, f"c{number}")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= timelines.LIMIT + 200
