"""`qemubox debug bundle`: whole whatever fails, bounded, and silent on what is nobody's business."""

import json
import stat
import tarfile
from pathlib import Path

import pytest

from shim.cli import parts
from shim.cli.bundle import LIST_NAME, PART_LIMIT, TOTAL_LIMIT, collect
from shim.cli.parts import Part, without_secrets
from shim.journal import Journal
from shim.version import VERSION
from tests.unit.shim.cli.conftest import Command, MakeMachine
from tests.unit.shim.cli.machines import KEY, Machine


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing in it but what a test puts there."""
    path = tmp_path / "bin"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    return path


def _program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(f"#!/bin/sh\n{text}\n")
    (directory / name).chmod(0o755)


def _read(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            assert entry.mode == 0o600
            found[entry.name.partition("/")[2]] = file.read()
        return found


async def test_what_it_holds_of_a_machine(qemubox: Command, machine: Machine, programs: Path, tmp_path: Path) -> None:
    machine.start()
    machine.console.write_bytes(b"Linux version\n")
    Journal(machine.directory).record("path", path="/run/something")
    _program(programs, "containerd", 'echo "containerd 2.3.4"')
    _program(programs, "journalctl", "echo level=info of=qemubox; echo level=debug 'Envs:[SECRET=1]'")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "b.tar.gz")) == 0
    found = _read(tmp_path / "b.tar.gz")
    place = f"machines/{KEY}"
    assert found[f"{place}/console"] == b"Linux version\n"
    assert json.loads(found[f"{place}/machine.json"])["id"] == "box"
    assert f"guest=qemubox-{KEY}".encode() in found[f"{place}/arguments.txt"]
    assert b"path /run/something\n" in found[f"{place}/journal.txt"]
    assert b" console\n" in found[f"{place}/files.txt"]
    assert found["containerd.txt"] == b"containerd 2.3.4\n"
    assert found["log.txt"] == b"level=info of=qemubox\n(1 lines are left out)\n"
    assert json.loads(found["config.json"])["runtime"]["state_dir"]["value"] == str(machine.directory.parents[1])
    assert json.loads(found["ps.json"])[0]["state"] == "no answer"
    assert isinstance(json.loads(found["gc.json"]), list)
    assert b"uname: Linux" in found["host.txt"]
    assert "console: 14 bytes" in qemubox.out
    assert stat.S_IMODE((tmp_path / "b.tar.gz").stat().st_mode) == 0o600


async def test_where_nearly_everything_fails(
    qemubox: Command, machine: Machine, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong configuration, no programs, a machine's file that is damaged: each a line, and the rest is there."""
    (machine.directory / "address.json").write_text("{")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "b.tar.gz")) == 0
    listing = _read(tmp_path / "b.tar.gz")[LIST_NAME].decode()
    assert "machines: cannot be had: HostError" in listing
    assert "containerd.txt: cannot be had: FileNotFoundError" in listing
    (tmp_path / "config.toml").write_text("[vm]\naccel = 3\n")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "c.tar.gz")) == 0
    found = _read(tmp_path / "c.tar.gz")
    assert b"config.json: cannot be had: ConfigError" in found[LIST_NAME]
    assert b"vm.accel = 3" in found[LIST_NAME]
    assert found["version.txt"].startswith(b"qemubox ")
    assert b"uname: Linux" in found["host.txt"]


async def test_nothing_of_a_specification_or_an_environment(
    qemubox: Command, machine: Machine, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start()
    (machine.bundle / "config.json").write_text(json.dumps({"process": {"env": ["TOKEN=a-secret"]}}))
    # As poststop hooks are kept there, with their environment.
    (machine.directory / "hooks.json").write_text('{"env": ["TOKEN=a-secret"]}')
    monkeypatch.setenv("TOKEN", "a-secret")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "b.tar.gz")) == 0
    assert [name for name, data in _read(tmp_path / "b.tar.gz").items() if b"a-secret" in data] == []
    assert "a-secret" not in qemubox.out


@pytest.mark.parametrize("name", ["second", "seco", "name-of-second"])
async def test_one_container_alone(
    qemubox: Command, machines: MakeMachine, programs: Path, tmp_path: Path, name: str
) -> None:
    machines(key="a" * 24, container="first")
    machines(key="b" * 24, container="second")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "b.tar.gz"), name) == 0
    found = _read(tmp_path / "b.tar.gz")
    assert {name.split("/")[1] for name in found if name.startswith("machines/")} == {"b" * 24}
    assert [each["id"] for each in json.loads(found["ps.json"])] == ["second"]


async def test_a_container_without_a_machine(
    qemubox: Command, machine: Machine, programs: Path, tmp_path: Path
) -> None:
    """One that has ended, or a word that is wrong: it is told, and the rest is there."""
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / "b.tar.gz"), "bix") == 0
    assert "machines: cannot be had: NotFoundError: container bix has no machine (see qemubox ps)" in qemubox.out
    assert b"uname: Linux" in _read(tmp_path / "b.tar.gz")["host.txt"]


@pytest.mark.parametrize(("place", "why"), [("no/b.tar.gz", "No such file or directory"), ("bin", "Is a directory")])
async def test_a_place_that_cannot_be_written(
    qemubox: Command, machine: Machine, programs: Path, tmp_path: Path, place: str, why: str
) -> None:
    """It is told at once, by the name that was given."""
    _program(programs, "containerd", f"echo > {tmp_path}/asked")
    assert await qemubox("debug", "bundle", "-o", str(tmp_path / place)) == 1
    assert qemubox.err == f"qemubox: {tmp_path / place}: {why}\n"
    assert not (tmp_path / "asked").exists()
    assert [path.name for path in tmp_path.iterdir() if ".tar" in path.name] == []


def test_it_is_bounded() -> None:
    pieces = [Part(f"part{number}", lambda: b"x" * PART_LIMIT + b"end") for number in range(40)]
    found = list(collect(pieces))
    assert sum(len(each.data) for each in found) == TOTAL_LIMIT
    assert found[0].data.endswith(b"end")
    assert str(found[0]) == f"part0: the last {PART_LIMIT} of {PART_LIMIT + 3} bytes"
    assert str(found[-1]) == f"part39: the last 0 of {PART_LIMIT + 3} bytes"


def test_a_program_that_hangs_is_told_to_end_and_then_made_to(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo = tmp_path / "undone"
    _program(programs, "polite", f"trap 'echo > {undo}; exit 1' TERM; while :; do /bin/sleep 0.1; done")
    _program(programs, "rude", "trap '' TERM; exec /bin/sleep 60")
    (found,) = collect([Part("x", lambda: parts.output(("polite",), 0.5))])
    assert found.note == "cannot be had: RuntimeError: polite did not end within 0.5 s"
    assert undo.exists()
    monkeypatch.setattr(parts, "_UNDO_S", 0.2)
    (found,) = collect([Part("x", lambda: parts.output(("rude",), 0.2))])
    assert found.note == "cannot be had: RuntimeError: rude did not end within 0.2 s"


@pytest.mark.parametrize(
    "line",
    [
        "level=debug msg=anything",
        'level=info msg="CreateContainer with config &ContainerConfig{...}"',
        'msg="Envs:[]*KeyValue"',
        '{"env": ["A=b"]}',
        "level=trace msg=anything",
        r'{"level":"debug","msg":"Container \"c\" spec: (*specs.Spec){Process:{Env:[]string{\"A=b\"}}}"}',
        '{"level": "trace", "msg": "anything"}',
        r'level=info msg="form data: {\"Env\":[\"A=b\"]}"',
    ],
)
def test_lines_that_may_hold_an_environment_are_left_out(line: str) -> None:
    assert without_secrets(f"one\n{line}\ntwo\n") == "one\ntwo\n(1 lines are left out)\n"


def test_lines_that_hold_none_are_told() -> None:
    text = 'level=info msg="environment: 3 machines"\nlevel=warning msg="the envelope is level"\n'
    assert without_secrets(text) == f"{text}(0 lines are left out)\n"


def test_our_own_command_is_found_wherever_we_are() -> None:
    assert parts.output(parts.own("--version"), 30) == f"{VERSION}\n".encode()
