"""The files of a cgroup, read again and again."""

import os
from pathlib import Path

from vminitd.figures import Figures


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_they_are_opened_once_and_read_anew(tmp_path: Path) -> None:
    (tmp_path / "pids.current").write_text("1\n")
    (tmp_path / "memory.stat").write_text("anon 5\n" * 500)
    before = _descriptors()
    figures = Figures(str(tmp_path))
    assert _descriptors() == before
    assert figures.read() == {"pids.current": b"1\n", "memory.stat": b"anon 5\n" * 500}
    assert _descriptors() == before + 2
    (tmp_path / "pids.current").write_text("2\n")
    assert figures.read()["pids.current"] == b"2\n"
    assert _descriptors() == before + 2
    figures.close()
    figures.close()
    assert _descriptors() == before


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    assert Figures(str(tmp_path / "gone")).read() == {}
