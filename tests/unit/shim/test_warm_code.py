"""Whether the service is what lies on the disk, where a loader runs its Python: in a release."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shim.warm.code import interpreter, program_of

ROOT = Path(__file__).parents[3]
LOADER = "/lib64/ld-linux-x86-64.so.2"
# Tells before and after a line on its standard input.
PROGRAM = """
import sys
from shim.warm.ask import packages
from shim.warm.code import Code, interpreter
code = Code(packages())
print(code.changed(), interpreter(), sep="|", flush=True)
input()
print(code.changed(), interpreter(), sep="|", flush=True)
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """Two releases' runtimes, and the link that leads to the first."""
    for name in ("runtime-1", "runtime-2"):
        (tmp_path / name / "bin").mkdir(parents=True)
        shutil.copy(LOADER, tmp_path / name / "bin")
        (tmp_path / name / "bin/python3").touch()
    (tmp_path / "runtime").symlink_to("runtime-1")
    return tmp_path


def lead_to(release: Path, name: str) -> None:
    (release / "new").symlink_to(name)
    os.replace(release / "new", release / "runtime")


def test_a_service_of_a_release_sees_the_next_one_and_would_be_executed_by_it(release: Path) -> None:
    mine = release / "runtime-1/bin"
    loaded = [str(mine / Path(LOADER).name), "--argv0", str(mine / "python3"), os.path.realpath(sys.executable)]
    with subprocess.Popen(
        [*loaded, "-Sc", PROGRAM],
        env={"PYTHONHOME": sys.base_prefix, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdin
        assert service.stdout
        assert service.stdout.readline() == f"|{release}/runtime/bin/python3\n"
        lead_to(release, "runtime-2")
        told, _ = service.communicate("\n", timeout=30)
    assert service.returncode == 0
    new = release / "runtime/bin"
    assert told == f"{new}/{Path(LOADER).name} is another program now|{new}/python3\n"


@pytest.mark.parametrize("where", ["/usr/bin/python3", "/usr/share/runtime-1/bin/python3", "/runtime/bin/python3"])
def test_any_other_python_is_its_own(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    monkeypatch.setattr(sys, "executable", where)
    assert interpreter() == where
    assert program_of(where, "/usr/bin/python3.13") == where
