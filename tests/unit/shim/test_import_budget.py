"""What each job of the shim binary may import: containerd pays for it twice per container.

The lists are complete for -v, -info, `delete`, and a `start` that the service makes the shim for.
Where `start` forks it, only what is known to be dear is kept out, up to the fork, since the
daemon needs most of the rest anyway.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.unit.shim.program import Host
from tests.unit.shim.warm_service import WarmService

_ROOT = Path(__file__).parents[3]

# As deploy/launcher does; then the modules that were not there before, to standard error.
_LAUNCHER = """
import os, sys
before = set(sys.modules)
sys.path += sys.argv.pop(1).split(":")
from shim.entry import main
status = main()
sys.stderr.write(" ".join(sorted(set(sys.modules) - before)))
sys.exit(status)
"""
# The same up to the fork, which does not happen.
_FORK = """
import os, sys
def fork():
    sys.stderr.write(" ".join(sorted(set(sys.modules) - before)))
    sys.stderr.flush()
    os._exit(0)
os.fork = fork
"""

_ENTRY = {"__future__", "shim", "shim.arguments", "shim.entry", "shim.version"}
_INFO = _ENTRY | {"shim.info", "shim.wire"}
_DELETE = _ENTRY | {
    *("errno", "fcntl", "time"),
    *("shim.bundle", "shim.claim", "shim.delete", "shim.journal", "shim.reclaim", "shim.wire"),
}
_START = _ENTRY | {"_socket", "time", "shim.start", "shim.warm", "shim.warm.ask", "shim.warm.message"}
# Milliseconds each, on the machine where a bare interpreter takes 7 (Debian 12, 2026-11).
_DEAR = {
    "asyncio": 40,
    "google.protobuf": 35,
    "structlog": 80,
    "pyroute2": 130,
    "qemu": 60,
    "psutil": 15,
    "dataclasses": 10,
    "inspect": 7,
    "pathlib": 3,
    "subprocess": 6,
    "logging": 6,
    "shim.daemon": 300,
    "opentelemetry": 70,
    "requests": 40,
}


def _imported(
    program: str,
    words: list[str],
    *,
    stdin: bytes = b"",
    cwd: Path = Path("/"),
    environment: dict[str, str] | None = None,
) -> set[str]:
    path = f"{_ROOT}:{sysconfig.get_path('purelib')}"
    command = [sys.executable, "-IS", "-c", program, path, *words]
    done = subprocess.run(command, capture_output=True, check=True, input=stdin, cwd=cwd, env=environment or {})
    return set(done.stderr.decode().split())


@pytest.mark.parametrize(("word", "budget"), [("-v", _ENTRY), ("-info", _INFO)])
def test_of_what_is_asked_by_people(word: str, budget: set[str]) -> None:
    assert _imported(_LAUNCHER, [word]) - budget == set()


def test_of_delete_when_all_is_well(host: Host) -> None:
    shim = host.shim()
    (shim.bundle / "qemubox").symlink_to(shim.directory)
    words = ["-namespace", "ns", "-id", "c1", "-bundle", str(shim.bundle), "delete"]
    assert _imported(_LAUNCHER, words) - _DELETE == set()


def test_of_start_with_the_service(host: Host) -> None:
    service = WarmService(host.service)
    service.start()
    try:
        shim = host.shim()
        imported = _imported(
            _LAUNCHER, shim.words("start")[4:], stdin=shim.bootstrap, cwd=shim.bundle, environment=shim.environment
        )
        assert imported - _START == set()
        assert shim.connect().shim_pid == shim.pid
    finally:
        service.close()


def test_of_start_up_to_its_fork(host: Host) -> None:
    shim = host.shim()
    program = _LAUNCHER.replace("from shim", _FORK + "from shim")
    imported = _imported(
        program, shim.words("start")[4:], stdin=shim.bootstrap, cwd=shim.bundle, environment=shim.environment
    )
    assert "shim.start" in imported
    assert imported & _DEAR.keys() == set()
