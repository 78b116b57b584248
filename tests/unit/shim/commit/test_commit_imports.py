"""The client of gRPC is the command's alone: neither the shim nor the service, which shims are forks of, has it."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[4]
_DEAR = ("grpclib", "h2", "shim.containerd", "shim.commit.command", "shim.commit.commit")


@pytest.mark.parametrize("module", ["shim.entry", "shim.daemon", "shim.cli", "shim.warm.service"])
def test_it_is_imported_nowhere_else(module: str) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30, cwd=_ROOT
    )
    assert [name for name in done.stdout.split() if name.startswith(_DEAR)] == []


def test_the_command_line_s_help_is_there_without_it() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "shim.cli", "commit", "--help"],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=_ROOT,
    )
    assert "--change" in done.stdout
    assert "grpclib" not in done.stderr
