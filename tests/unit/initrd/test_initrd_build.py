"""The image's scripts: what goes in, that each input changes the key, and clear words when something is missing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from initrd import contents

PROJECT = Path(__file__).parents[3]
SCRIPTS = (
    *("initrd/build.sh", "initrd/base.sh", "tests/parts.sh", "deploy/suite.sh", "deploy/vhost-device-vsock.sh"),
    *("deploy/mirror.sh", "deploy/parts.sh", "deploy/tree-python.sh", "deploy/wheel.sh", "deploy/wheels.sh"),
    *("deploy/release/build.sh", "deploy/release/compare.sh", "deploy/release/runtime.sh"),
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the image is made from."""
    copy = tmp_path / "checkout"
    for part in ("api", "archive", "netlink", "ttrpc", "vminitd", "initrd", "deploy"):
        shutil.copytree(PROJECT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "requirements.lock", copy)
    return copy


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def path_of(checkout: Path, **environment: str) -> str:
    result = run(checkout / "initrd/build.sh", "--path", QEMUBOX_BUILD_CACHE=str(checkout / "cache"), **environment)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_are_sh(script: str) -> None:
    subprocess.run(["sh", "-n", PROJECT / script], check=True, timeout=10)
    assert os.access(PROJECT / script, os.X_OK)


def test_the_path_is_one_line_below_the_cache_and_nothing_is_made(checkout: Path) -> None:
    path = path_of(checkout)
    assert path.startswith(f"{checkout}/cache/initrd/")
    assert path.endswith("/guest.erofs\n")
    assert not (checkout / "cache").exists()
    assert path_of(checkout) == path


@pytest.mark.parametrize(
    "file",
    [
        "vminitd/__main__.py",
        "netlink/rtnl.py",
        "ttrpc/server.py",
        "api/guest_pb2.py",
        "initrd/contents.py",
        "initrd/root/init",
        "initrd/root/etc/passwd",
        "initrd/build.sh",
        "initrd/base.sh",
        "deploy/tree.py",
        "deploy/tree-python.sh",
    ],
)
def test_a_changed_input_is_another_image(checkout: Path, file: str) -> None:
    before = path_of(checkout)
    with (checkout / file).open("a") as changed:
        changed.write("# changed\n")
    assert path_of(checkout) != before


def test_another_version_in_the_lock_is_another_image(checkout: Path) -> None:
    before = path_of(checkout)
    lock = checkout / "requirements.lock"
    lock.write_text(lock.read_text().replace("protobuf==", "protobuf==0", 1))
    assert path_of(checkout) != before


def test_what_does_not_go_in_does_not_matter(checkout: Path) -> None:
    before = path_of(checkout)
    (checkout / "initrd/README.md").write_text("words\n")
    (checkout / "vminitd/__pycache__").mkdir()
    (checkout / "vminitd/__pycache__/boot.cpython-311.pyc").write_bytes(b"\0")
    assert path_of(checkout) == before


def test_the_time_of_files_is_an_input(checkout: Path) -> None:
    assert path_of(checkout, SOURCE_DATE_EPOCH="1") != path_of(checkout)


def test_no_lock_is_said(checkout: Path) -> None:
    (checkout / "requirements.lock").unlink()
    result = run(checkout / "initrd/build.sh", "--path")
    assert result.returncode == 1
    assert "missing" in result.stderr
    assert "requirements.lock" in result.stderr
    assert result.stdout == ""


def test_an_unknown_argument_is_refused() -> None:
    for script in ("initrd/build.sh", "initrd/base.sh"):
        result = run(PROJECT / script, "--bogus")
        assert (result.returncode, result.stdout) == (2, "")
        assert "usage:" in result.stderr


def test_development_tools_stay_out() -> None:
    entries = contents.entries(PROJECT)
    assert "vminitd.__main__" in entries
    assert "vminitd" in entries
    assert "ttrpc.server" in entries
    assert not contents.TOOLS & set(entries)


def test_tools_named_as_left_out_exist() -> None:
    for tool in contents.TOOLS:
        assert (PROJECT / Path(*tool.split("."))).with_suffix(".py").is_file()


def test_our_modules_are_laid_out_with_source_and_compiled_code(tmp_path: Path) -> None:
    project, out = tmp_path / "project", tmp_path / "out"
    (project / "vminitd").mkdir(parents=True)
    source = project / "vminitd/boot.py"
    source.write_text("x = 1\n")
    compiled = contents.place("vminitd.boot", source, (project,), out)
    assert (out / "usr/lib/qemubox/vminitd/boot.py").read_text() == "x = 1\n"
    assert compiled.parent == out / "usr/lib/qemubox/vminitd/__pycache__"
    assert compiled.is_file()


def test_libraries_are_laid_out_as_compiled_code_alone(tmp_path: Path) -> None:
    base, out = tmp_path / "python3.13", tmp_path / "out"
    (base / "json").mkdir(parents=True)
    (base / "json/scanner.py").write_text('"""Docstrings go."""\n')
    contents.place("json.scanner", base / "json/scanner.py", (base,), out)
    assert [path.name for path in (out / "usr/lib/python3.13/json").iterdir()] == ["scanner.pyc"]
    assert b"Docstrings" not in (out / "usr/lib/python3.13/json/scanner.pyc").read_bytes()
