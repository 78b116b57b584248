"""`qemubox config show`: the whole configuration, with where each value comes from."""

import json
from pathlib import Path

import pytest

from shim.config import Config, parse
from tests.unit.shim.cli.conftest import Command


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "c.toml"
    path.write_text('[vm]\nqemu = "/opt/qemu"\nallow_tcg = true\n[annotations]\nallow = ["vm.cpus"]\n')
    monkeypatch.setenv("QEMUBOX_CONFIG", str(path))
    return path


async def test_what_is_printed_is_the_configuration(qemubox: Command, file: Path) -> None:
    assert await qemubox("config", "show") == 0
    assert parse(qemubox.out) == parse(file.read_text())
    sources = {line.partition(" = ")[0]: line.rpartition("# ")[2] for line in qemubox.out.splitlines()}
    assert sources["qemu"] == sources["allow"] == str(file)
    assert sources["allow_tcg"] == str(file)  # though it is the default's value
    assert sources["accel"] == "default"


async def test_as_json(qemubox: Command, file: Path) -> None:
    assert await qemubox("config", "show", "--json") == 0
    shown = json.loads(qemubox.out)
    assert shown["vm"]["qemu"] == {"value": "/opt/qemu", "from": str(file)}
    assert shown["annotations"]["allow"] == {"value": ["vm.cpus"], "from": str(file)}
    assert {section: set(keys) for section, keys in shown.items()} == {
        section: set(table._fields) for section, table in Config()._asdict().items()
    }


async def test_the_defaults(qemubox: Command, file: Path) -> None:
    assert await qemubox("config", "show", "--defaults") == 0
    assert parse(qemubox.out) == Config()
    assert str(file) not in qemubox.out


async def test_a_file_that_no_container_could_be_started_with(qemubox: Command, file: Path) -> None:
    file.write_text("[vm]\naccel = 3\n")
    assert await qemubox("config", "show") == 1
    assert f"{file}: vm.accel = 3: must be one of auto, kvm, tcg" in qemubox.err


async def test_without_a_file(qemubox: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QEMUBOX_CONFIG", raising=False)
    monkeypatch.setattr("shim.config.DEFAULT_PATH", str(tmp_path / "none"))
    assert await qemubox("config", "show") == 0
    assert parse(qemubox.out) == Config()
