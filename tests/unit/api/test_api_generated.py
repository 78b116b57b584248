"""What is checked in is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

import pytest

from api import generate
from api.guest_ttrpc import ContainersBase, ContainersStub, MachineBase, NetworkBase
from api.task_ttrpc import TaskBase


def test_checked_in_code_is_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check", str(tmp_path)]) == 0, capsys.readouterr().err
    made = generate.generated_files(tmp_path)
    assert {"api/guest_pb2.py", "api/guest_pb2.pyi", "api/guest_ttrpc.py", "ttrpc/request_pb2.py"} <= made.keys()
    assert "api/types_ttrpc.py" not in made


def test_differences_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in "tree/api", "tree/ttrpc", "made/api", "made/ttrpc":
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "tree/api/same_pb2.py").write_text("1")
    (tmp_path / "made/api/same_pb2.py").write_text("1")
    (tmp_path / "tree/api/changed_pb2.pyi").write_text("1")
    (tmp_path / "made/api/changed_pb2.pyi").write_text("2")
    (tmp_path / "tree/api/old_ttrpc.py").write_text("1")
    (tmp_path / "made/ttrpc/new_pb2.py").write_text("1")
    monkeypatch.setattr(generate, "ROOT", tmp_path / "tree")
    assert generate.differences(tmp_path / "made") == [
        "api/changed_pb2.pyi: differs",
        "api/old_ttrpc.py: has no .proto",
        "ttrpc/new_pb2.py: missing",
    ]


def test_protoc_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check", str(tmp_path / "no such directory")]) == 1
    assert "protoc failed with status" in capsys.readouterr().err


def test_check_fails_for_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "differences", lambda _target: ["api/x_pb2.py: differs"])
    assert generate.main(["--check", str(tmp_path)]) == 1
    assert "api/x_pb2.py: differs (run `python -m api.generate`)" in capsys.readouterr().err


def test_services_have_their_full_names() -> None:
    assert "/containerd.task.v3.Task/Create" in TaskBase().service_methods()
    assert "/qemubox.guest.v1.Machine/Configure" in MachineBase().service_methods()
    assert "/qemubox.guest.v1.Network/Forward" in NetworkBase().service_methods()


def test_base_and_stub_have_the_same_methods() -> None:
    def methods(cls: type) -> set[str]:
        return {name for name in vars(cls) if not name.startswith("_") and name != "service_methods"}

    assert methods(ContainersBase) == methods(ContainersStub)
    assert {path.rpartition("/")[2] for path in ContainersBase().service_methods()} == methods(ContainersBase)


def test_serving_does_not_load_the_client() -> None:
    """The stubs beside a base need the client's types for type checkers only."""
    program = "import sys, api.guest_ttrpc; print('ttrpc.client' in sys.modules)"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=generate.ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout == "False\n"
