"""What an import of ttrpc costs: both the host's start path and the guest pay it."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PRINT_MODULES = "import sys; print(*sorted(sys.modules))"


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter without site packages' hooks has loaded after `statement`."""
    command = [sys.executable, "-c", f"{statement}\n{PRINT_MODULES}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    return set(result.stdout.split())


def test_naming_an_error_loads_next_to_nothing() -> None:
    added = modules_after("from ttrpc import Code, StatusError") - modules_after("import enum, functools")
    assert {name for name in added if not name.startswith("_")} == {"ttrpc", "ttrpc.status"}


def test_serving_loads_no_client_and_calling_no_server() -> None:
    serving = modules_after("from ttrpc import Server, Service, Context")
    assert "ttrpc.server" in serving
    assert serving.isdisjoint({"ttrpc.client", "ttrpc.stream", "ttrpc.plugin"})
    calling = modules_after("from ttrpc import Client")
    assert "ttrpc.client" in calling
    assert calling.isdisjoint({"ttrpc.server", "ttrpc.service", "ttrpc.stream", "ttrpc.plugin"})


def test_nothing_beyond_asyncio_and_protobuf() -> None:
    base = modules_after(
        "import asyncio, google.protobuf.message\nfrom google.protobuf.internal import builder\n"
        "from google.protobuf import runtime_version, symbol_database"
    )
    added = modules_after("from ttrpc import Client, Server, Service, Context, Stream") - base
    assert {name for name in added if not name.startswith("ttrpc")} == set()


def test_library_knows_nothing_of_qemubox() -> None:
    added = modules_after("from ttrpc import Client, Server, Service, Context, Stream")
    assert {name for name in added if name.split(".")[0] in {"api", "shim", "vminitd", "structlog"}} == set()


def test_unknown_name() -> None:
    command = [sys.executable, "-c", "import ttrpc; ttrpc.Nothing"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert "module 'ttrpc' has no attribute 'Nothing'" in result.stderr
