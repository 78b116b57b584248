"""Which tests run on which containerd: nothing that is written is left out, neither of the matrix nor at a change."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.matrix import group, measured

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def usual() -> set[str]:
    return _collected()


@pytest.fixture(scope="module")
def whole() -> set[str]:
    return _collected("--matrix")


def _collected(*options: str) -> set[str]:
    """The ids of the tests that would run."""
    words = [sys.executable, "-m", "pytest", "tests/vm", "-p", "no:cacheprovider", "--collect-only", "-q", *options]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return {line for line in done.stdout.splitlines() if "::" in line}


def _function(name: str) -> str:
    return name.partition("[")[0]


@pytest.mark.timeout(240)
def test_what_is_not_run_at_every_change_is_marked_and_named_in_the_documentation(
    usual: set[str], whole: set[str]
) -> None:
    written: set[str] = set()
    before_a_release: set[str] = set()
    for path in (ROOT / "tests/vm").glob("test_*.py"):
        marks: list[str] = []
        for line in path.read_text().splitlines():
            marks += [line] if line.startswith("@pytest.mark.") else []
            if line.startswith(("def ", "async def ")):
                name = line.partition("def ")[2].partition("(")[0]
                found = {f"{path.relative_to(ROOT)}::{name}"} if name.startswith("test_") else set()
                written |= found
                before_a_release |= found if "@pytest.mark.release" in marks else set()
                marks = []
    assert usual < whole
    assert {_function(name) for name in whole} == written
    assert {_function(name) for name in usual} == written - before_a_release
    page = (ROOT / "docs/testing.md").read_text()
    files = {name.partition("::")[0].rpartition("/")[2] for name in before_a_release}
    section = page.partition("is marked `release`")[2].partition("\n## ")[0]
    assert {*re.findall(r"`(test_\w+\.py)`", section)} == files


def test_the_matrix_has_both_containerds_and_runtimes(usual: set[str], whole: set[str]) -> None:
    for where in ("c1.6-qemubox", "c2-qemubox", "c1.6-runc"):
        assert sum(where in name for name in usual) > 50, where
        assert sum(where in name for name in whole) > 300, where
    # What has a place on both has it on the newest at every change.
    on_debians = {_function(name) for name in usual if "c1.6-qemubox" in name}
    on_newest = {_function(name) for name in usual if "c2-qemubox" in name}
    assert on_debians & on_newest
    both = {_function(name) for name in whole if "c2-qemubox" in name} & on_debians
    assert both <= on_newest


def test_what_both_shims_of_runc_answer_is_asked_of_both(usual: set[str]) -> None:
    rows = [name for name in usual if "c2-runc" in name and "conformance" in name]
    assert rows, "a row in which runc's newest shim differs"


def test_a_worker_has_the_tests_of_a_file_on_one_containerd_with_one_runtime(usual: set[str]) -> None:
    def of(case: str) -> str:
        return group(f"tests/vm/test_x.py::test_y{case}")

    assert of("") == of("[1450]") == "tests/vm/test_x.py"
    assert (
        of("[c2-qemubox]")
        == of("[serial-c2-qemubox]")
        == of("[c2-qemubox-c1.6-runc]")
        == "tests/vm/test_x.py-2-qemubox"
    )
    assert of("[busybox-dpkg-c1.6-runc-x[y]]") == "tests/vm/test_x.py-1.6-runc"
    for name in usual:
        found = re.search(r"c(1\.6|2)-(qemubox|runc)", name)
        assert group(name).count("-") == (2 if found else 0), name


def test_what_is_known_to_take_long_is_there() -> None:
    for name in measured():
        assert (ROOT / f"tests/vm/test_{name}.py").is_file(), name


def test_the_unit_tests_that_begin_first_are_there() -> None:
    text = (ROOT / "tests/unit/conftest.py").read_text()
    names = [line.strip().strip('",') for line in text.splitlines() if line.strip().endswith('.py",')]
    assert len(names) > 5
    for name in names:
        assert (ROOT / "tests/unit" / name).is_file(), name
