"""The guess, from a bundle, whether its container wants volumes."""

import json
import os
import threading
from pathlib import Path

import pytest

from shim import deadlines
from shim.volumes.expected import expected

_NAMESPACES = [{"type": kind} for kind in ("mount", "network", "pid", "ipc", "uts")]


def _bundle(directory: Path, *mounts: dict[str, object], **others: object) -> Path:
    document = {"process": {"terminal": True}, "mounts": [*mounts], "linux": {"namespaces": _NAMESPACES}, **others}
    (directory / "config.json").write_text(json.dumps(document))
    return directory


def _bind(source: Path, *options: str) -> dict[str, object]:
    return {"type": "bind", "source": str(source), "destination": "/v", "options": ["rbind", *options]}


def test_a_directory(tmp_path: Path) -> None:
    assert expected(_bundle(tmp_path, {"type": "proc", "destination": "/proc"}, _bind(tmp_path, "rw")))


def test_nothing_of_the_kind(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_text("copied")
    assert not expected(_bundle(tmp_path, {"type": "proc", "source": "proc", "destination": "/proc"}))
    assert not expected(_bundle(tmp_path, _bind(small, "ro")))


@pytest.mark.parametrize(
    "text", ["", "bind", '{"mounts": "bind"}', '["bind"]', '{"mounts": [{"type": "bind"}]}', "\0bind"]
)
def test_what_cannot_be_read_wants_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert not expected(tmp_path)


def test_no_bundle_wants_none(tmp_path: Path) -> None:
    assert not expected(tmp_path)


def test_what_will_be_refused_wants_none(tmp_path: Path) -> None:
    assert not expected(_bundle(tmp_path, _bind(tmp_path / "nothing", "rw")))


def test_a_source_that_does_not_answer_wants_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its server is down, say: the shim must answer all the same."""
    answers = threading.Event()
    realpath = os.path.realpath

    def never(path: Path, *, strict: bool) -> str:
        assert answers.wait(60)
        return realpath(path, strict=strict)

    monkeypatch.setattr(os.path, "realpath", never)
    monkeypatch.setattr(deadlines, "SOURCES_GUESS_S", 0.01)
    assert not expected(_bundle(tmp_path, _bind(tmp_path, "rw")))
    answers.set()
    for thread in threading.enumerate():
        if thread.name == "sources":
            thread.join(60)
