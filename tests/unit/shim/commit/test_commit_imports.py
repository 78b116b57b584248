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


def test_the_service_leaves_out_what_is_the_commands() -> None:
    """And has all else: no shim that it forks imports anything of ours itself."""
    program = "import sys\nfrom shim.warm.service import _import_everything\n_import_everything()\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30, cwd=_ROOT
    )
    loaded = done.stdout.split()
    assert [name for name in loaded if name.startswith((*_DEAR, "shim.commit", "shim.check", "shim.cli"))] == []
    packages = (path for path in (_ROOT / "shim").rglob("*.py") if path.name != "__main__.py")
    modules = {".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__") for path in packages}
    left_out = {name for name in modules - set(loaded) if name != "shim.tracing.otel"}
    assert {name.split(".")[1] for name in left_out} == {"check", "cli", "commit", "containerd"}


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
