"""The table of where a start's time went."""

import json
from pathlib import Path

import pytest

from deploy import phases

MARKS = {"create": 0.0, "paused": 120.5, "control": 2120.5}


def _write(path: Path, *containers: str) -> None:
    lines = [
        json.dumps({"namespace": "default", "id": name, "phases": {"create": 0.0, "run": float(number)}, "guest": {}})
        for number, name in enumerate(containers, 1)
    ]
    path.write_text("\n".join(lines) + "\n")


def test_durations_are_from_mark_to_mark() -> None:
    assert phases.durations(MARKS) == {"paused": 120.5, "control": 2000.0}


def test_a_first_mark_after_the_origin_counts_too() -> None:
    assert phases.durations({"python": 900.0, "booted": 1000.0}) == {"python": 900.0, "booted": 100.0}


def test_a_clone_s_marks_begin_where_its_template_ended() -> None:
    guest = {"python": 900.0, "waiting": 1000.0, "device": 1030.0, "configured": 1100.0}
    assert phases.own({"restored": 9.0}, guest) == {"waiting": 0.0, "device": 30.0, "configured": 100.0}
    assert phases.own({"run": 9.0}, guest) == guest


def test_the_longest_phase_has_the_longest_bar() -> None:
    lines = phases.table(MARKS).splitlines()
    assert [line.count("#") for line in lines] == [0, 2, 40]
    assert "2000.0 ms" in lines[2]
    assert "2120.5 ms" in lines[2]


def test_the_last_line_of_a_container_counts(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    _write(path, "a", "b", "a")
    assert phases.find(path, "default", "a")["phases"] == {"create": 0.0, "run": 3.0}


@pytest.mark.parametrize(("namespace", "container"), [("default", "c"), ("other", "a")])
def test_a_container_without_a_line_is_said(tmp_path: Path, namespace: str, container: str) -> None:
    path = tmp_path / "timeline.jsonl"
    _write(path, "a")
    with pytest.raises(LookupError, match=f"{namespace}/{container}"):
        phases.find(path, namespace, container)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match=r"timeline\.jsonl"):
        phases.find(tmp_path / "timeline.jsonl", "default", "a")
