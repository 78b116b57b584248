"""The configuration file: all of its errors by name, and what is right in it counts."""

import os
from pathlib import Path

import pytest

from shim import config as module
from shim.check import configuration
from shim.check.line import Level, Report
from shim.config import Config


def _load(path: Path) -> tuple[Config, Report]:
    report = Report("configuration")
    return configuration.load(report, {"QEMUBOX_CONFIG": str(path)}), report


def test_none_is_all_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "DEFAULT_PATH", str(tmp_path / "none.toml"))
    report = Report("configuration")
    assert configuration.load(report, {}) == Config()
    (line,) = report.lines
    assert (line.level, line.found) == (Level.OK, "not there: every key has its default")


def test_one_that_is_named_must_be_there(tmp_path: Path) -> None:
    config, report = _load(tmp_path / "none.toml")
    assert config == Config()
    (line,) = report.lines
    assert line.level is Level.FAILURE
    assert line.what == str(tmp_path / "none.toml")
    assert line.found.startswith("no such file: no container starts")
    assert line.mend == "QEMUBOX_CONFIG names it"


def test_every_error_is_told_and_the_rest_counts(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('odd = 1\n[vm]\ndefault_cpus = 99\nqemu = "/q"\nkvm = true\n[vsock]\nmode = "carrier pigeon"\n')
    config, report = _load(path)
    assert config.vm.qemu == "/q"
    assert config.vm.default_cpus == Config().vm.default_cpus
    assert config.vsock.mode == "auto"
    assert [line.level for line in report.lines] == [Level.FAILURE] * 4
    for words, line in zip(
        ("unknown key odd = 1", "vm.default_cpus = 99: must be", "unknown key vm.kvm", "vsock.mode = 'carrier pigeon'"),
        report.lines,
        strict=True,
    ):
        assert words in line.found
        assert line.what == str(path)


def test_no_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[vm]\nqemu = oops\n")
    config, report = _load(path)
    assert config == Config()
    (line,) = report.lines
    assert line.level is Level.FAILURE
    assert "line 2" in line.found


def test_a_section_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("vm = 3\n")
    assert "must be a section" in _load(path)[1].lines[0].found


@pytest.mark.parametrize(
    ("mode", "owner", "level"), [(0o644, 0, "ok"), (0o664, 0, "warning"), (0o644, 65534, "warning")]
)
def test_who_may_write_it(mode: int, owner: int, level: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(mode)
    os.chown(path, owner, -1)
    assert _load(path)[1].lines[-1].level == level
